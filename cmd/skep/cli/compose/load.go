package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// maxFile is the size of a compose file in bytes. Real ones have some kilobytes; anchors could make much of a larger one.
	maxFile = 1 << 20
	// maxFiles is the number of files that one stack is merged from, those that they include not counted.
	maxFiles = 64
	// stdin is the name of the input stream among the files.
	stdin = "-"
)

// namePattern is what the Compose Specification says of the name of a project.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// CheckName says whether a stack can have a name.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.New(fault.Invalid, "invalid stack name %q: write lower-case letters, digits, - and _, the first a letter or a digit", name)
	}
	return nil
}

// Source says what to read.
type Source struct {
	// Files are the compose files, those after the first merged over it; - is the input stream.
	Files []string
	// Stdin is read for the file -.
	Stdin io.Reader
	// Environ has the variables, NAME=VALUE.
	Environ []string
	// Name is the name of the stack; empty leaves names as they are in the files.
	Name string
	// SkipInterpolation leaves ${VARIABLES} as they are.
	SkipInterpolation bool
}

// loading is held while compose-go loads, because it warns through the process's logger.
var loading sync.Mutex

// Load reads and merges compose files. The warnings are for the user.
func Load(ctx context.Context, from Source) (project *types.Project, warnings []string, err error) {
	details, err := from.read()
	if err != nil {
		return nil, nil, err
	}
	loading.Lock()
	defer loading.Unlock()
	var said bytes.Buffer
	logger := logrus.StandardLogger()
	out, format := logger.Out, logger.Formatter
	logger.SetOutput(&said)
	logger.SetFormatter(messages{})
	defer func() {
		logger.SetOutput(out)
		logger.SetFormatter(format)
	}()
	project, err = from.load(ctx, details)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "%s: %s", strings.Join(from.Files, ", "), reason(err))
	}
	for line := range strings.Lines(said.String()) {
		warnings = append(warnings, strings.TrimSpace(line))
	}
	slices.Sort(warnings)
	return project, slices.Compact(warnings), nil
}

// load has compose-go load the files. It panics on some values of a wrong type, such as {soft: } of a ulimit (FuzzNewStack): that is the
// file's fault, and no reason to show a trace.
func (s Source) load(ctx context.Context, details types.ConfigDetails) (project *types.Project, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("a value is empty or of a wrong type: %v", cause)
		}
	}()
	project, err = loader.LoadWithContext(ctx, details, s.options(details.WorkingDir))
	if err != nil {
		return nil, err
	}
	return withFiles(project)
}

// unknownKey is how the library's schema says that there is no such key.
var unknownKey = regexp.MustCompile(`(\S+) (?:false schema|additional properties '([^']*)' not allowed)`)

// reason returns what went wrong, without the word for its kind that compose-go ends with.
func reason(err error) string {
	text := strings.TrimSuffix(err.Error(), ": invalid compose project")
	return unknownKey.ReplaceAllStringFunc(text, func(found string) string {
		parts := unknownKey.FindStringSubmatch(found)
		return strings.TrimSuffix(parts[1]+"."+parts[2], ".") + ": the Compose Specification has no such key"
	})
}

func (s Source) options(directory string) func(*loader.Options) {
	return func(o *loader.Options) {
		o.SetProjectName(s.Name, true)
		o.SkipInterpolation = s.SkipInterpolation
		if s.Name == "" { // the files are only shown
			o.SetProjectName("stack", true)
			o.SkipNormalization = true
			o.SkipConsistencyCheck = true // it takes the default network for one that is not there
		}
		o.SkipResolveEnvironment, o.SkipResolveLabels = true, true // withFiles does
		o.ResourceLoaders = []loader.ResourceLoader{guard{directory}}
	}
}

// withFiles returns a project with what its services' env_file and label_file hold.
func withFiles(project *types.Project) (*types.Project, error) {
	for _, service := range project.Services {
		names := slices.Clone(service.LabelFiles)
		for _, file := range service.EnvFiles {
			names = append(names, file.Path)
		}
		for _, name := range names {
			if err := endless(name); err != nil {
				return nil, fmt.Errorf("service %s: %w", service.Name, err)
			}
		}
	}
	project, err := project.WithServicesEnvironmentResolved(true)
	if err != nil {
		return nil, err
	}
	return project.WithServicesLabelsResolved(false)
}

// endless returns an error for a file that the library would read although it is too large, or has no end. It says what is wrong with
// all others.
func endless(name string) error {
	switch info, err := os.Stat(name); {
	case err != nil || info.IsDir():
		return nil
	case !info.Mode().IsRegular():
		return fault.New(fault.Invalid, "%s is no regular file", name)
	case info.Size() > maxFile:
		return fault.New(fault.Invalid, "%s is larger than %d bytes", name, maxFile)
	}
	return nil
}

// guard is asked before the library loads a file that include or extends names, and takes those upon itself that are endless.
type guard struct{ directory string }

func (g guard) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(g.directory, name)
}

// Accept reports whether the file is one to refuse.
func (g guard) Accept(name string) bool { return endless(g.path(name)) != nil }

// Load refuses it.
func (g guard) Load(_ context.Context, name string) (string, error) {
	return "", endless(g.path(name))
}

// Dir is never asked for: Load comes first.
func (g guard) Dir(name string) string { return filepath.Dir(g.path(name)) }

// messages formats what compose-go logs as lines, without what is no news: all files for Docker's stacks have a version.
type messages struct{}

// Format returns one line.
func (messages) Format(entry *logrus.Entry) ([]byte, error) {
	if strings.Contains(entry.Message, "the attribute `version` is obsolete") {
		return nil, nil
	}
	return []byte(strings.ReplaceAll(entry.Message, "\n", " ") + "\n"), nil
}

// read returns the content of the files, and the environment.
func (s Source) read() (types.ConfigDetails, error) {
	details := types.ConfigDetails{Environment: types.NewMapping(s.Environ)}
	if len(s.Files) > maxFiles {
		return details, fault.New(fault.Invalid, "%d compose files, more than %d: merge some of them with `skep stack config`", len(s.Files), maxFiles)
	}
	for i, name := range s.Files {
		content, err := s.content(name)
		if err != nil {
			return details, err
		}
		file := types.ConfigFile{Filename: name, Content: content}
		directory := "."
		if name != stdin {
			if file.Filename, err = filepath.Abs(name); err != nil {
				return details, fault.Wrap(fault.Invalid, err)
			}
			directory = filepath.Dir(file.Filename)
		}
		if i == 0 {
			if details.WorkingDir, err = filepath.Abs(directory); err != nil {
				return details, fault.Wrap(fault.Invalid, err)
			}
		}
		details.ConfigFiles = append(details.ConfigFiles, file)
	}
	return details, nil
}

func (s Source) content(name string) ([]byte, error) {
	from := s.Stdin
	if name != stdin {
		file, err := flagvalue.OpenFile(name)
		if err != nil {
			return nil, fault.New(fault.KindOf(err), "compose file: %w", err)
		}
		defer file.Close()
		from = file
	}
	return readAtMost(from, "compose file "+name, maxFile)
}

// readAtMost reads what there is, and says of what is empty or too large that it is.
func readAtMost(from io.Reader, what string, most int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, int64(most)+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "read %s: %w", what, err)
	case len(data) > most:
		clear(data)
		return nil, fault.New(fault.Invalid, "%s is larger than %d bytes", what, most)
	case len(data) == 0:
		return nil, fault.New(fault.Invalid, "%s is empty", what)
	}
	return data, nil
}

// Marshal writes a project as a compose file.
func Marshal(project *types.Project) ([]byte, error) {
	shown := *project
	shown.Name = "" // the argument of `stack deploy` says it
	text, err := shown.MarshalYAML()
	if err != nil {
		return nil, fmt.Errorf("write the compose file: %w", err)
	}
	return text, nil
}
