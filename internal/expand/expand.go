package expand

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/skep-io/skep/internal/fault"
)

// MaxSize is how many bytes a template expands to at most: those of the largest config.
const MaxSize = 1000 * 1024

// maxTotal bounds what all functions of one template return together.
const maxTotal = 16 * MaxSize

// Context is what a template may name.
type Context struct {
	Service Service
	Node    Node
	Task    Task
}

// Service is the task's service.
type Service struct {
	ID, Name string
	Labels   map[string]string
}

// Node is where the task runs.
type Node struct {
	ID, Hostname string
	Platform     Platform
}

// Platform is in the words of Go: linux, amd64.
type Platform struct{ OS, Architecture string }

// Task is the task itself. Its name is SERVICE.SLOT.ID.
type Task struct{ ID, Name, Slot string }

// Values are what the functions secret, config and env return, which only the value of a secret or config may call; the zero value has
// none of them.
type Values struct {
	Secret, Config, Env func(name string) (string, error)
}

// Templated reports whether a text is a template.
func Templated(text string) bool { return strings.Contains(text, "{{") }

// Check returns why a text is no template that can be expanded, or nil. values says whether secret, config and env may be called.
func Check(text string, values bool) error {
	var v Values
	if values {
		none := func(string) (string, error) { return "", nil }
		v = Values{none, none, none}
	}
	_, err := compile(text, v, new(budget))
	return err
}

// Expand fills in a template.
func Expand(text string, c Context, values Values) ([]byte, error) {
	b := &budget{left: maxTotal}
	t, err := compile(text, values, b)
	if err != nil {
		return nil, err
	}
	out := &limited{}
	if err := t.Execute(out, c); err != nil {
		out.clear()
		return nil, invalid(err)
	}
	return out.Bytes(), nil
}

// invalid says what is wrong with a template, without where in Go's own words that was noticed.
func invalid(err error) error {
	text := err.Error()
	var exec template.ExecError
	if errors.As(err, &exec) {
		if cause := errors.Unwrap(exec.Err); cause != nil {
			text = cause.Error() // of one of the functions
		}
	}
	return fault.New(fault.Invalid, "template: %s", strings.TrimPrefix(text, "template: "))
}

func compile(text string, values Values, b *budget) (*template.Template, error) {
	t, err := template.New("value").Option("missingkey=error").Funcs(b.functions(values)).Parse(text)
	if err != nil {
		return nil, invalid(err)
	}
	if len(t.Templates()) > 1 {
		return nil, fault.New(fault.Invalid, "template: {{define}} and {{block}} can't be used: write the text where it belongs")
	}
	if t.Tree == nil { // an empty text
		return t, nil
	}
	return t, check(t.Root, false)
}

// check refuses what would not end, or not soon (E1). looped says whether n is in a loop.
func check(n parse.Node, looped bool) error {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		for _, child := range n.Nodes {
			if err := check(child, looped); err != nil {
				return err
			}
		}
		return nil
	case *parse.IfNode:
		return errors.Join(check(n.List, looped), check(n.ElseList, looped))
	case *parse.WithNode:
		return errors.Join(check(n.List, looped), check(n.ElseList, looped))
	case *parse.RangeNode:
		if looped || !overField(n.Pipe) {
			return fault.New(fault.Invalid, "template: {{range}} can only be over a field, such as .Service.Labels, and not within another one")
		}
		return errors.Join(check(n.List, true), check(n.ElseList, looped))
	case *parse.TemplateNode:
		return fault.New(fault.Invalid, "template: {{template}} can't be used: write the text where it belongs")
	default:
		return nil
	}
}

func overField(p *parse.PipeNode) bool {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	_, ok := p.Cmds[0].Args[0].(*parse.FieldNode)
	return ok
}

// errTooMuch is returned by a function that would return more than it may (E2).
var errTooMuch = fault.New(fault.Invalid, "it makes too much text: %d bytes are allowed", MaxSize)

// budget is what the functions of one expansion may still return. It is not safe for concurrent use.
type budget struct{ left int }

// take returns a text that a function made, unless it is too much (E2).
func (b *budget) take(text string) (string, error) {
	if b.left -= len(text); b.left < 0 || len(text) > MaxSize {
		return "", errTooMuch
	}
	return text, nil
}

// bounded is a function of texts that is called only with as much as it may return: one of many long arguments would take all memory before
// its result could be measured.
func (b *budget) bounded(fn func(args ...any) string) func(args ...any) (string, error) {
	return func(args ...any) (string, error) {
		size := 0
		for _, arg := range args {
			text, ok := arg.(string)
			if !ok {
				text = fmt.Sprint(arg)
			}
			if size += len(text); size > MaxSize {
				return "", errTooMuch
			}
		}
		return b.take(fn(args...))
	}
}

// functions are all that make texts: Go's own, bounded, join, which is Swarm's, and what values has.
func (b *budget) functions(values Values) template.FuncMap {
	out := template.FuncMap{
		"join": func(separator string, parts ...string) (string, error) {
			return b.bounded(func(args ...any) string { return strings.Join(parts, separator) })(spread(separator, parts)...)
		},
		"print":   b.bounded(fmt.Sprint),
		"println": b.bounded(fmt.Sprintln),
		"printf": func(format string, args ...any) (string, error) {
			if wide(format) {
				return "", fault.New(fault.Invalid, "printf: widths of more than three digits, * and [n] can't be used")
			}
			return b.bounded(func(args ...any) string { return fmt.Sprintf(format, args[1:]...) })(append([]any{format}, args...)...)
		},
		"html":     b.bounded(template.HTMLEscaper),
		"js":       b.bounded(template.JSEscaper),
		"urlquery": b.bounded(template.URLQueryEscaper),
	}
	for name, fn := range map[string]func(string) (string, error){"secret": values.Secret, "config": values.Config, "env": values.Env} {
		if fn != nil {
			out[name] = func(key string) (string, error) {
				text, err := fn(key)
				if err != nil {
					return "", err
				}
				return b.take(text)
			}
		}
	}
	return out
}

// spread returns what join is given, with the separator as often as it will be there.
func spread(separator string, parts []string) (args []any) {
	for _, part := range parts {
		args = append(args, part, separator)
	}
	return args
}

// wide reports whether a format makes much more of a text than is in it, or uses it more than once.
func wide(format string) bool {
	digits := 0
	verb := false
	for _, r := range format {
		switch {
		case r == '%':
			verb, digits = !verb, 0
		case !verb:
		case r == '*' || r == '[':
			return true
		case r >= '0' && r <= '9':
			if digits++; digits > 3 {
				return true
			}
		case strings.ContainsRune("+-# .", r):
			digits = 0
		default:
			verb = false
		}
	}
	return false
}

// limited holds what a template expands to (E2).
type limited struct{ buf bytes.Buffer }

var _ io.Writer = (*limited)(nil)

// Write takes in more, up to MaxSize bytes.
func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > MaxSize {
		return 0, fault.New(fault.Invalid, "it expands to more than %d bytes", MaxSize)
	}
	return l.buf.Write(p)
}

// Bytes returns what was written.
func (l *limited) Bytes() []byte { return l.buf.Bytes() }

// clear overwrites what was written, which may have secrets in it.
func (l *limited) clear() { clear(l.buf.Bytes()) }
