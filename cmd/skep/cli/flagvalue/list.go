package flagvalue

import (
	"fmt"
	"strings"
)

// List collects the values of a flag that may be given several times. Each value is kept as it is, commas included.
type List []string

// Set adds one value.
func (l *List) Set(text string) error {
	*l = append(*l, text)
	return nil
}

// String is empty: the default of a list is nothing.
func (l *List) String() string { return strings.Join(*l, ", ") }

// Type is Docker's word.
func (l *List) Type() string { return "list" }

// Labels collects key=value pairs. A key alone has the empty value.
type Labels map[string]string

// Set adds one pair.
func (l *Labels) Set(text string) error {
	key, value, _ := strings.Cut(text, "=")
	if key == "" {
		return fmt.Errorf("invalid label format: %q: write KEY=VALUE", text)
	}
	if *l == nil {
		*l = Labels{}
	}
	(*l)[key] = value
	return nil
}

// String is empty: the default is no label.
func (l *Labels) String() string { return "" }

// Type is Docker's word.
func (l *Labels) Type() string { return "list" }

// LogOptions are options of a log driver, KEY=VALUE.
type LogOptions map[string]string

// Set adds one pair.
func (o *LogOptions) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if key == "" || !ok {
		return fmt.Errorf("invalid log option: %q: write KEY=VALUE, such as max-size=10m", text)
	}
	if *o == nil {
		*o = LogOptions{}
	}
	(*o)[key] = value
	return nil
}

// String is empty: the default is no option.
func (o *LogOptions) String() string { return "" }

// Type is Docker's word.
func (o *LogOptions) Type() string { return "list" }

// Words is a command line, split as a shell would: on blanks, with quotes and backslashes.
type Words []string

// Set splits text.
func (w *Words) Set(text string) error {
	words, err := Split(text)
	if err != nil {
		return err
	}
	*w = words
	return nil
}

// String is empty: the default is no word.
func (w *Words) String() string { return strings.Join(*w, " ") }

// Type is Docker's word.
func (w *Words) Type() string { return "command" }

// Split splits text into words as a POSIX shell does, without expanding anything: single quotes keep everything, double
// quotes keep all but a backslash before ", \, $ or a backquote, and outside of quotes a backslash keeps the next character.
func Split(text string) ([]string, error) {
	s := splitter{}
	for _, r := range text {
		s.next(r)
	}
	if s.quote != 0 || s.escaped {
		return nil, fmt.Errorf("%q ends inside a quote", text)
	}
	s.endWord()
	return s.words, nil
}

// splitter is the state between two characters of a command line.
type splitter struct {
	words []string
	word  strings.Builder
	// inWord tells an empty quoted word from no word.
	inWord  bool
	quote   rune
	escaped bool
}

func (s *splitter) next(r rune) {
	switch {
	case s.escaped:
		s.escaped = false
		if s.quote == '"' && !strings.ContainsRune("\"\\$`", r) {
			s.word.WriteRune('\\')
		}
		s.word.WriteRune(r)
	case r == '\\' && s.quote != '\'':
		s.escaped, s.inWord = true, true
	case s.quote != 0:
		if r == s.quote {
			s.quote = 0
			return
		}
		s.word.WriteRune(r)
	case r == '\'' || r == '"':
		s.quote, s.inWord = r, true
	case r == ' ' || r == '\t' || r == '\n' || r == '\r':
		s.endWord()
	default:
		s.inWord = true
		s.word.WriteRune(r)
	}
}

func (s *splitter) endWord() {
	if s.inWord {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.inWord = false
}
