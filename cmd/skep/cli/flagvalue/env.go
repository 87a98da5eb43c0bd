package flagvalue

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/skep-io/skep/internal/fault"
)

// maxEnvFile is the size of an environment file in bytes; a task's variables must fit into an object of the store.
const maxEnvFile = 1 << 20

// LookupEnv is the environment of the command, as [os.LookupEnv].
type LookupEnv func(name string) (string, bool)

// ReadEnv returns the variables of the files, then those given one by one, as NAME=VALUE; of equal names the last counts.
// A name without a value takes the command's own; a name that has none there is left out. Errors are faults.
func ReadEnv(files, given []string, lookup LookupEnv) ([]string, error) {
	var all []string
	for _, name := range files {
		lines, err := readEnvFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	env, err := resolveEnv(append(all, given...), lookup)
	return env, fault.Wrap(fault.Invalid, err)
}

func resolveEnv(variables []string, lookup LookupEnv) ([]string, error) {
	var out []string
	at := map[string]int{}
	for _, variable := range variables {
		name, _, hasValue := strings.Cut(variable, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s: write NAME=VALUE", variable)
		}
		if !hasValue {
			value, ok := lookup(name)
			if !ok {
				continue
			}
			variable = name + "=" + value
		}
		if i, seen := at[name]; seen {
			out[i] = variable
			continue
		}
		at[name] = len(out)
		out = append(out, variable)
	}
	return out, nil
}

func readEnvFile(name string) ([]string, error) {
	file, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines, err := ParseEnvFile(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "env file %s: %w", name, err)
	}
	return lines, nil
}

// ParseEnvFile reads lines NAME=VALUE or NAME. Blank lines and lines that start with # count for nothing; blanks before a
// name are dropped; a value is kept as it stands, quotes included.
func ParseEnvFile(r io.Reader) ([]string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxEnvFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxEnvFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxEnvFile)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var out []string
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxEnvFile+1)
	for number := 1; scanner.Scan(); number++ {
		line, err := envLine(scanner.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if line != "" {
			out = append(out, line)
		}
	}
	return out, scanner.Err()
}

// envLine returns the variable of one line, or "" when it has none.
func envLine(line string) (string, error) {
	if !utf8.ValidString(line) {
		return "", fmt.Errorf("invalid utf8 bytes in %q", line)
	}
	if strings.ContainsRune(line, 0) {
		return "", fmt.Errorf("%q holds a zero byte", line)
	}
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	if line == "" || strings.HasPrefix(line, "#") {
		return "", nil
	}
	name, _, _ := strings.Cut(line, "=")
	if name == "" {
		return "", fmt.Errorf("no variable name on line '%s'", line)
	}
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return "", fmt.Errorf("variable '%s' contains whitespaces", name)
	}
	return line, nil
}
