package settlemysql

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// rewritten is a text whose numbered placeholders have become positional.
type rewritten struct {
	text  string
	order []int // which argument each placeholder takes, from 0; nil when the text had no numbers
	err   error
}

// placeholdersMax is how many the servers take.
const placeholdersMax = 65535

// textsMax bounds the texts remembered, for a program that makes new ones.
const textsMax = 4096

// rewriter remembers the texts that it has seen: those of a program, which are few.
type rewriter struct {
	seen  sync.Map
	count atomic.Int64
}

// bind returns a text and its arguments as the server wants them.
func (r *rewriter) bind(query string, args []any) (string, []any, error) {
	v, ok := r.seen.Load(query)
	if !ok {
		w := rewrite(query)
		v = &w
		if r.count.Add(1) <= textsMax {
			r.seen.Store(query, v)
		}
	}
	w, _ := v.(*rewritten)
	if w.err != nil || w.order == nil {
		return w.text, args, w.err
	}
	bound := make([]any, len(w.order))
	for i, n := range w.order {
		if n >= len(args) {
			return "", nil, fmt.Errorf("placeholder ?%d, %d arguments", n+1, len(args))
		}
		bound[i] = args[n]
	}
	return w.text, bound, nil
}

// rewrite turns ?1 into ?, outside of strings, quoted names and comments.
func rewrite(query string) rewritten {
	var out strings.Builder
	var order []int
	plain := 0
	for i := 0; i < len(query); {
		n := skip(query[i:])
		if n > 0 {
			out.WriteString(query[i : i+n])
			i += n
			continue
		}
		out.WriteByte(query[i])
		if query[i] != '?' {
			i++
			continue
		}
		i++
		number, digits := 0, 0
		for ; i < len(query) && query[i] >= '0' && query[i] <= '9'; i++ {
			number, digits = min(number*10+int(query[i]-'0'), placeholdersMax+1), digits+1
		}
		switch {
		case digits == 0:
			plain++
		case number == 0 || number > placeholdersMax:
			return rewritten{err: fmt.Errorf("placeholder with a number that is not from 1 to %d", placeholdersMax)}
		default:
			order = append(order, number-1)
		}
	}
	if plain > 0 && order != nil {
		return rewritten{err: errors.New("placeholders with numbers and without in one statement")}
	}
	return rewritten{text: out.String(), order: order}
}

// skip returns the length of a string, a quoted name or a comment at the beginning of s; 0 when there is none.
func skip(s string) int {
	switch {
	case s[0] == '\'' || s[0] == '"' || s[0] == '`':
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\\' && s[0] != '`':
				i++
			case s[i] == s[0]: // A doubled quote begins the next string, which is as good.
				return i + 1
			}
		}
		return len(s)
	case strings.HasPrefix(s, "/*"):
		if end := strings.Index(s, "*/"); end > 0 {
			return end + 2
		}
		return len(s)
	case s[0] == '#' || strings.HasPrefix(s, "--") && (len(s) == 2 || strings.IndexByte(" \t\r\n", s[2]) >= 0):
		if end := strings.IndexByte(s, '\n'); end >= 0 {
			return end + 1
		}
		return len(s)
	}
	return 0
}
