package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"

	"github.com/skep-io/skep/internal/fault"
)

// maxPadding bounds what the function pad adds on each side, so that a typing error can't fill the memory.
const maxPadding = 4096

// parse reads a template; the two-character sequences \t and \n stand for a tab and a line end, because a shell passes them so.
func parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	parsed, err := template.New("").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "template parsing error: %w", err)
	}
	return parsed, nil
}

// functions are those that Docker's templates have, beside Go's own.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}
}

// headerFunctions leave a column's title as it is, whatever the template does with the values below it.
func headerFunctions() template.FuncMap {
	same := func(text string) string { return text }
	return template.FuncMap{
		"json":     same,
		"split":    func(text, _ string) string { return text },
		"join":     func(text any, _ string) string { return fmt.Sprint(text) },
		"title":    same,
		"lower":    same,
		"upper":    same,
		"pad":      func(text string, _, _ int) string { return text },
		"truncate": func(text string, _ int) string { return text },
	}
}

// toJSON returns v as JSON on one line, with <, > and & as they are.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// title returns text with the first letter of each word in upper case.
func title(text string) string {
	start := true
	return strings.Map(func(r rune) rune {
		if start {
			r = unicode.ToTitle(r)
		}
		start = unicode.IsSpace(r)
		return r
	}, text)
}

// pad adds blanks on both sides; a negative number adds none.
func pad(text string, before, after int) (string, error) {
	if before > maxPadding || after > maxPadding {
		return "", fmt.Errorf("pad adds %d characters at most", maxPadding)
	}
	if text == "" {
		return text, nil
	}
	return strings.Repeat(" ", max(before, 0)) + text + strings.Repeat(" ", max(after, 0)), nil
}

// truncate returns the first n characters of text.
func truncate(text string, n int) string {
	if n < 0 || utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}

// Ellipsis returns text cut to n characters, the last of which is … when something was left out.
func Ellipsis(text string, n int) string {
	if n <= 0 || utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}
