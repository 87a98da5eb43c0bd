package output_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/internal/fault"
)

type row struct {
	ID    string
	Name  string
	Count int
	Tags  []string
	tags  map[string]string
}

// Label returns a value that is no field.
func (r row) Label(name string) string { return r.tags[name] }

func rows() []row {
	return []row{
		{ID: "a1", Name: "web server", Count: 3, Tags: []string{"x", "y"}, tags: map[string]string{"zone": "<a>"}},
		{ID: "b2", Name: "db"},
	}
}

func TestWriteList(t *testing.T) {
	const table = "{{.ID}}\t{{.Name}}"
	for name, test := range map[string]struct {
		format string
		quiet  bool
		want   string
	}{
		"table by default":        {"", false, "IDENT     NAMED\na1        web server\nb2        db\n"},
		"table by name":           {"table", false, "IDENT     NAMED\na1        web server\nb2        db\n"},
		"table of a template":     {`table {{.Name}}\t{{.ID}}`, false, "NAMED        IDENT\nweb server   a1\ndb           b2\n"},
		"table with functions":    {`table {{upper .Name}}\t{{json .ID}}`, false, "NAMED        IDENT\nWEB SERVER   \"a1\"\nDB           \"b2\"\n"},
		"table with truncation":   {`table {{truncate .Name 3}}|{{pad .ID 1 1}}`, false, "NAMED|IDENT\nweb| a1 \ndb| b2 \n"},
		"template":                {"{{.ID}}={{.Count}}", false, "a1=3\nb2=0\n"},
		"template with escapes":   {`{{.ID}}\t{{.Count}}`, false, "a1\t3\nb2\t0\n"},
		"template with functions": {`{{join .Tags "+"}}{{with .Label "zone"}} {{json .}}{{end}} {{title .Name}}`, false, "x+y \"<a>\" Web Server\n Db\n"},
		"split":                   {`{{index (split .Name " ") 0}}`, false, "web\ndb\n"},
		"json":                    {"json", false, `{"ID":"a1","Name":"web server","Count":3,"Tags":["x","y"]}` + "\n" + `{"ID":"b2","Name":"db","Count":0,"Tags":null}` + "\n"},
		"quiet":                   {"", true, "a1\nb2\n"},
		"quiet table":             {"table", true, "a1\nb2\n"},
		"quiet json":              {"json", true, "a1\nb2\n"},
		"quiet template":          {"{{.Name}}", true, "web server\ndb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := output.ParseList(test.format, table, test.quiet)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := output.WriteList(&b, list, row{ID: "IDENT", Name: "NAMED"}, rows()); err != nil {
				t.Fatal(err)
			}
			if b.String() != test.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), test.want)
			}
		})
	}
}

func TestWriteList_KeepsATableFromControlCharacters(t *testing.T) {
	evil := []row{{ID: "a\x1b[2J", Name: "b\nfake   row"}}
	for format, want := range map[string]string{
		"table {{.ID}} {{.Name}}": "I N\na?[2J b?fake   row\n",
		"{{.ID}}":                 "a\x1b[2J\n",
	} {
		list, err := output.ParseList(format, "", false)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := output.WriteList(&b, list, row{ID: "I", Name: "N"}, evil); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v, want %q", format, b.String(), err, want)
		}
	}
	if evil[0].Name != "b\nfake   row" {
		t.Error("the caller's row was changed")
	}
	if got := output.PrintableLines("a\x1b\nb\tc"); got != "a?\nb\tc" {
		t.Errorf("got %q", got)
	}
}

func TestWriteList_RefusesBadTemplates(t *testing.T) {
	for _, format := range []string{"{{", "{{.Nope}}", "{{nope}}", "table {{.Nope}}", "{{pad .Name 9999999 1}}", "{{template \"x\"}}"} {
		list, err := output.ParseList(format, "", false)
		if err == nil {
			err = output.WriteList(&bytes.Buffer{}, list, row{}, rows())
		}
		if fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: got %v, want an invalid template", format, err)
		}
	}
}

func TestObjects(t *testing.T) {
	for format, want := range map[string]string{
		"":          "[\n    {\n        \"ID\": \"b2\",\n        \"Name\": \"db\",\n        \"Count\": 0,\n        \"Tags\": null\n    }\n]\n",
		"json":      `{"ID":"b2","Name":"db","Count":0,"Tags":null}` + "\n",
		"{{.Name}}": "db\n",
	} {
		var b bytes.Buffer
		if err := output.Objects(&b, format, rows()[1:]); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%q: got %q, want %q", format, b.String(), want)
		}
	}
	var b bytes.Buffer
	if err := output.Objects[row](&b, "", nil); err != nil || b.String() != "[]\n" {
		t.Errorf("no object: got %q, %v", b.String(), err)
	}
}

func TestEllipsis(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"ääää", 3, "ää…"}, {"abc", 0, "abc"}} {
		if got := output.Ellipsis(test.text, test.n); got != test.want {
			t.Errorf("%q at %d: got %q, want %q", test.text, test.n, got, test.want)
		}
	}
}

func FuzzParseList(f *testing.F) {
	for _, format := range []string{"table {{.ID}}", "json", "{{range .Tags}}{{.}}{{end}}", "{{truncate .Name -1}}", `{{printf "%d" .Count}}`, "tableau"} {
		f.Add(format, true)
	}
	f.Fuzz(func(t *testing.T, format string, quiet bool) {
		if strings.Contains(format, "range") || strings.Contains(format, "printf") || strings.Contains(format, "template") {
			return // Go's own: they may loop over numbers or pad without bound, as the person who typed them asked
		}
		list, err := output.ParseList(format, "{{.ID}}", quiet)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := output.WriteList(&b, list, row{}, rows()); err == nil && b.Len() == 0 {
			t.Errorf("%q wrote nothing for two rows", format)
		}
	})
}
