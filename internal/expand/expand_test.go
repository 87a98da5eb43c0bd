package expand_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/expand"
	"github.com/skep-io/skep/internal/fault"
)

func context() expand.Context {
	return expand.Context{
		Service: expand.Service{ID: "s1", Name: "web", Labels: map[string]string{"tier": "front", "com.example.owner": "ops"}},
		Node:    expand.Node{ID: "n1", Hostname: "w1", Platform: expand.Platform{OS: "linux", Architecture: "amd64"}},
		Task:    expand.Task{ID: "t1", Name: "web.3.t1", Slot: "3"},
	}
}

func values() expand.Values {
	get := func(kind string) func(string) (string, error) {
		return func(name string) (string, error) {
			if name == "none" {
				return "", errors.New("the task has no " + kind + " none")
			}
			return kind + " " + name, nil
		}
	}
	return expand.Values{Secret: get("secret"), Config: get("config"), Env: get("env")}
}

func TestExpand(t *testing.T) {
	for text, want := range map[string]string{
		"":            "",
		"no {braces}": "no {braces}",
		"{{.Service.ID}} {{.Service.Name}} {{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}": "s1 web n1 w1 linux/amd64",
		"{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}":                                           "t1 web.3.t1 3",
		`{{.Service.Labels.tier}} {{index .Service.Labels "com.example.owner"}}`:               "front ops",
		`{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}`:                             "com.example.owner=ops;tier=front;",
		`{{if eq .Task.Slot "3"}}third{{else}}other{{end}}{{with .Node}}@{{.Hostname}}{{end}}`: "third@w1",
		`{{secret "db"}} {{config "site"}} {{env "K"}}`:                                        "secret db config site env K",
		`{{join "-" .Service.Name .Task.Slot}} {{printf "%05s|%q" .Task.Slot .Node.ID}}`:       `web-3 00003|"n1"`,
		`{{secret "a" | html}} {{len "abc"}}`:                                                  "secret a 3",
	} {
		if err := expand.Check(text, true); err != nil {
			t.Errorf("check of %q: %v", text, err)
		}
		got, err := expand.Expand(text, context(), values())
		if err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}

// What is wrong is said, and is no internal error (E3).
func TestExpand_SaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"{{.Nope}}":                   "can't evaluate field Nope",
		"{{.Service.Labels.none}}":    "map has no entry for key \"none\"",
		`{{secret "none"}}`:           "the task has no secret none",
		"{{":                          "unclosed action",
		`{{exec "id"}}`:               "function \"exec\" not defined",
		`{{printf "%9999d" 1}}`:       "widths of more than three digits",
		`{{printf "%[2]*[1]d" 1 99}}`: "widths of more than three digits",
	} {
		_, err := expand.Expand(text, context(), values())
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{`{{secret "db"}}`, `{{config "db"}}`, `{{env "db"}}`} {
		if _, err := expand.Expand(text, context(), expand.Values{}); err == nil || !strings.Contains(err.Error(), "not defined") {
			t.Errorf("%q in a variable: got %v", text, err)
		}
		if expand.Check(text, false) == nil || expand.Check(text, true) != nil {
			t.Errorf("%q: it is checked otherwise than expanded", text)
		}
	}
}

// No template takes more than its bound, in time or memory (E1, E2).
func TestExpand_IsBounded(t *testing.T) {
	doubling := `{{$x := "0123456789"}}` + strings.Repeat(`{{$x = printf "%s%s" $x $x}}`, 60)
	escaping := `{{$x := "&<>"}}` + strings.Repeat(`{{$x = html $x $x}}`, 60)
	megabyte := `{{$x := "0123456789"}}` + strings.Repeat(`{{$x = printf "%s%s" $x $x}}`, 16)
	for text, want := range map[string]string{
		megabyte + `{{print ` + strings.Repeat(" $x", 100000) + `}}`:                               "too much text",
		megabyte + `{{join $x ` + strings.Repeat(` "a"`, 100000) + `}}`:                            "too much text",
		megabyte + `{{printf "` + strings.Repeat("%[1]s", 90000) + `" $x}}`:                        "widths of more than three digits",
		megabyte + `{{printf "` + strings.Repeat("%s", 9) + `" ` + strings.Repeat(" $x", 9) + `}}`: "too much text",
		doubling:                                 "too much text",
		escaping:                                 "too much text",
		strings.Repeat(`{{secret "x"}}`, 200000): "",
		`{{range 1000000000}}{{end}}`:            "{{range}} can only be over a field",
		`{{range .Service.Labels}}{{range $.Service.Labels}}{{end}}{{end}}`: "not within another one",
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`:             "{{define}}",
		`{{block "a" .}}{{template "a" .}}{{end}}`:                          "{{define}} and {{block}}",
		`{{template "value" .}}`:                                            "{{template}} can't be used",
		`{{with .Node}}{{template "value" .}}{{end}}`:                       "{{template}} can't be used",
	} {
		_, err := expand.Expand(text, context(), values())
		if want == "" {
			want = "more than 1024000 bytes"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add(`{{.Node.Hostname}} {{secret "a"}}`)
	f.Add(`{{range $k, $v := .Service.Labels}}{{$k}}{{end}}`)
	f.Add(`{{printf "%d" 1 | html | js | urlquery}}`)
	f.Fuzz(func(t *testing.T, text string) {
		out, err := expand.Expand(text, context(), values())
		if len(out) > expand.MaxSize {
			t.Errorf("%d bytes", len(out))
		}
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("got %v", err)
		}
		if expand.Check(text, true) != nil && err == nil {
			t.Error("what is refused was expanded")
		}
	})
}
