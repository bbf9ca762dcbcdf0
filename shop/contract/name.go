package contract

import (
	"strings"
	"unicode/utf8"
)

// IsName reports whether s can name anything: UTF-8 without a zero byte, which is what every database
// stores. Nobody knows of anything under another name, and there is no use in asking a database.
func IsName(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }
