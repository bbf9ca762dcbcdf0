package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/alecthomas/kong"
)

// settingsCmd is settle config.
type settingsCmd struct {
	listing

	Command string `arg:"" optional:"" help:"Only this command, such as demo." default:""`
	File    string `help:"The configuration file that --config would name." placeholder:"FILE"`
}

// setting is one effective value.
type setting struct {
	Command string `json:"command"`
	Name    string `json:"name"`
	Value   string `json:"value"`
	Origin  string `json:"origin"`
}

// Run prints effective values.
func (c *settingsCmd) Run(t *terminal, parser *kong.Kong) error {
	file := map[string]any{}
	if c.File != "" {
		b, err := os.ReadFile(c.File)
		if err != nil {
			return usage("--file: %v", err)
		}
		if err := json.Unmarshal(b, &file); err != nil {
			return usage("--file %s: %v", c.File, err)
		}
	}
	var all []setting
	for _, leaf := range parser.Model.Leaves(true) {
		if c.Command != "" && leaf.Path() != c.Command && leaf.Path() != "settle "+c.Command {
			continue
		}
		for _, f := range leaf.Flags {
			if !f.Hidden {
				all = append(all, settingOf(leaf.Path(), f, file))
			}
		}
	}
	if c.Command != "" && len(all) == 0 {
		return usage("there is no command %q", c.Command)
	}
	return printItems(t, c.JSON, all, "COMMAND\tSETTING\tVALUE\tORIGIN", func(s setting) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", s.Command, s.Name, s.Value, s.Origin)
	})
}

func settingOf(command string, f *kong.Flag, file map[string]any) setting {
	s := setting{Command: command, Name: f.Name, Value: f.Default, Origin: "default"}
	if v, ok := file[f.Name]; ok {
		s.Value, s.Origin = fmt.Sprint(v), "file"
	}
	for _, env := range f.Envs {
		if v, ok := os.LookupEnv(env); ok {
			s.Value, s.Origin = v, env
		}
	}
	return s
}
