package output

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"

	"github.com/skep-io/skep/internal/fault"
)

// Docker's table: columns at least 10 wide, with 3 blanks between them.
const (
	minWidth  = 10
	tabWidth  = 1
	columnGap = 3
)

// List is how a list is written.
type List struct {
	// json writes one JSON object a line, instead of a template.
	json  bool
	table bool
	row   *template.Template
}

// ParseList reads the --format of a list. An empty format is the table with the columns that the template defaultTable
// names. Quiet writes only the ID, unless the format is a template of its own, as Docker does.
func ParseList(format, defaultTable string, quiet bool) (*List, error) {
	switch columns, isTable := strings.CutPrefix(format, "table"); {
	case format == "json":
		if !quiet {
			return &List{json: true}, nil
		}
		return parsedList("{{.ID}}", false)
	case format == "" || (isTable && strings.TrimSpace(columns) == ""):
		if quiet {
			return parsedList("{{.ID}}", false)
		}
		return parsedList(defaultTable, true)
	case isTable && columns[0] == ' ':
		return parsedList(strings.TrimSpace(columns), true)
	default:
		return parsedList(format, false)
	}
}

func parsedList(text string, table bool) (*List, error) {
	row, err := parse(text)
	if err != nil {
		return nil, err
	}
	return &List{table: table, row: row}, nil
}

// WriteList writes rows in the list's format. The header is a row of column titles, shown above a table only.
func WriteList[R any](w io.Writer, list *List, header R, rows []R) error {
	if list.json {
		return writeJSONLines(w, rows)
	}
	if !list.table {
		return writeRows(w, list.row, rows)
	}
	titles, err := list.row.Clone()
	if err != nil {
		return fmt.Errorf("copy template: %w", err)
	}
	rows = printableRows(rows) // I1
	table := tabwriter.NewWriter(w, minWidth, tabWidth, columnGap, ' ', 0)
	if err := writeRows(table, titles.Funcs(headerFunctions()), []R{header}); err != nil {
		return err
	}
	if err := writeRows(table, list.row, rows); err != nil {
		return err
	}
	return table.Flush()
}

func writeRows[R any](w io.Writer, row *template.Template, rows []R) error {
	var b bytes.Buffer
	for _, r := range rows {
		b.Reset()
		if err := row.Execute(&b, r); err != nil {
			return fault.New(fault.Invalid, "template parsing error: %w", err)
		}
		b.WriteByte('\n')
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func writeJSONLines[R any](w io.Writer, rows []R) error {
	for _, r := range rows {
		line, err := toJSON(r)
		if err != nil {
			return fmt.Errorf("write as JSON: %w", err)
		}
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printableRows returns copies of rows whose strings have no control characters: what a machine says of itself, such as its
// hostname, must not move a person's cursor or add a line to a table.
func printableRows[R any](rows []R) []R {
	out := slices.Clone(rows)
	for i := range out {
		row := reflect.ValueOf(&out[i]).Elem()
		if row.Kind() != reflect.Struct {
			continue
		}
		for j := range row.NumField() {
			if field := row.Field(j); field.Kind() == reflect.String && field.CanSet() {
				field.SetString(Printable(field.String()))
			}
		}
	}
	return out
}

// Printable returns text with a ? for each control character.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

// PrintableLines is [Printable] for a page: line ends and tabs stay.
func PrintableLines(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, text)
}
