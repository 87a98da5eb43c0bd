package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/atomicfile"
	"github.com/skep-io/skep/internal/fault"
)

// Default is the name of the context that is always there: the daemon of this machine.
const Default = "default"

// The files of a context.
const (
	metaFile = "meta.json"
	caFile   = "ca.pem"
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// maxFile bounds a file of a context in bytes.
const maxFile = 64 << 10

// names is Docker's pattern. It has no name that means another directory.
var names = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,62}$`)

// Context is where a daemon is, and what proves who asks.
type Context struct {
	Name        string
	Description string
	client.Endpoint
}

// meta is what meta.json holds.
type meta struct{ Name, Description, Host string }

// Store is a person's contexts. Dir need not exist.
type Store struct{ Dir string }

// CheckName returns an Invalid fault for what can't name a context of a person's own.
func CheckName(name string) error {
	if name == Default || !names.MatchString(name) {
		return fault.New(fault.Invalid, "context name %q is invalid: 1 to 63 of [a-zA-Z0-9_.+-], the first [a-zA-Z0-9], and not %q", name, Default)
	}
	return nil
}

// Create adds a context.
func (s Store) Create(c Context) (err error) {
	if err := check(c); err != nil {
		return err
	}
	if _, err := os.Lstat(s.path(c.Name)); err == nil {
		return fault.New(fault.AlreadyExists, "context %q already exists", c.Name)
	}
	if err := os.MkdirAll(filepath.Dir(s.path(c.Name)), 0o700); err != nil {
		return fileFault(c.Name, err)
	}
	// What is written apart is there with one step (X2).
	apart, err := os.MkdirTemp(filepath.Dir(s.path(c.Name)), ".new-")
	if err != nil {
		return fileFault(c.Name, err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(apart) // the first error is the one that matters
		}
	}()
	files, err := filesOf(c)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(apart, name), data, 0o600); err != nil {
			return fileFault(c.Name, err)
		}
	}
	if err := os.Rename(apart, s.path(c.Name)); err != nil {
		return fileFault(c.Name, err)
	}
	return nil
}

// check returns what is wrong with a context.
func check(c Context) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if err := client.CheckHost(c.Host); err != nil || !client.IsRemote(c.Host) {
		return err
	}
	if err := c.TLS.Check(); err != nil {
		return fault.New(fault.KindOf(err), "context %q: %w", c.Name, err)
	}
	return nil
}

// filesOf returns the files of a context by name.
func filesOf(c Context) (map[string][]byte, error) {
	text, err := json.MarshalIndent(meta{c.Name, c.Description, c.Host}, "", "    ")
	if err != nil {
		return nil, fmt.Errorf("write context %q: %w", c.Name, err)
	}
	files := map[string][]byte{metaFile: append(text, '\n')}
	if !c.TLS.IsZero() {
		files[caFile], files[certFile], files[keyFile] = c.TLS.CA, c.TLS.Cert, c.TLS.Key
	}
	return files, nil
}

// fromFiles is the inverse of filesOf.
func fromFiles(files map[string][]byte) (Context, error) {
	var m meta
	if err := json.Unmarshal(files[metaFile], &m); err != nil {
		return Context{}, fault.New(fault.Invalid, "%s: %w", metaFile, err)
	}
	return Context{
		Name: m.Name, Description: m.Description,
		Endpoint: client.Endpoint{Host: m.Host, TLS: client.TLS{CA: files[caFile], Cert: files[certFile], Key: files[keyFile]}},
	}, nil
}

// Get returns a context.
func (s Store) Get(name string) (Context, error) {
	if name == Default {
		return Context{Name: Default, Description: "The daemon of this machine", Endpoint: client.Endpoint{Host: client.DefaultHost}}, nil
	}
	if err := CheckName(name); err != nil {
		return Context{}, err
	}
	files := map[string][]byte{}
	for _, file := range fileNames() {
		data, err := readFile(filepath.Join(s.path(name), file))
		switch {
		case err == nil:
			files[file] = data
		case file == metaFile && errors.Is(err, fs.ErrNotExist):
			return Context{}, fault.New(fault.NotFound, "context %q not found: `skep context ls` shows what there is", name)
		case !errors.Is(err, fs.ErrNotExist):
			return Context{}, fileFault(name, err)
		}
	}
	c, err := fromFiles(files)
	if err != nil {
		return Context{}, fault.New(fault.Invalid, "context %q: %w", name, err)
	}
	c.Name = name
	return c, nil
}

// readFile reads a file, but not more than it may have.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// List returns the names of all contexts, Default first.
func (s Store) List() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "contexts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("list contexts: %w", err))
	}
	all := []string{Default}
	for _, entry := range entries {
		if CheckName(entry.Name()) == nil {
			all = append(all, entry.Name())
		}
	}
	return all, nil
}

// Remove forgets a context. The one in use is kept unless forced.
func (s Store) Remove(name string, force bool) error {
	if _, err := s.Get(name); err != nil && (!force || fault.KindOf(err) == fault.NotFound) {
		return err
	}
	if name == Default {
		return fault.New(fault.Invalid, "context %q can't be removed", name)
	}
	current, err := s.Current()
	if err != nil {
		return err
	}
	if current == name {
		if !force {
			return fault.New(fault.Precondition, "context %q is in use: run `skep context use` with another first, or use --force", name)
		}
		if err := s.Use(Default); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.path(name)); err != nil {
		return fileFault(name, err)
	}
	return nil
}

// Current returns the name of the context in use.
func (s Store) Current() (string, error) {
	data, err := readFile(s.currentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Default, nil
	}
	if err != nil {
		return "", fault.Wrap(fault.Invalid, fmt.Errorf("which context is in use: %w", err))
	}
	return strings.TrimSpace(string(data)), nil
}

// Use makes a context the one in use.
func (s Store) Use(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	err := os.MkdirAll(s.Dir, 0o700)
	if err == nil {
		err = atomicfile.Write(s.currentFile(), []byte(name+"\n"), 0o600)
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, fmt.Errorf("use context %q: %w", name, err))
	}
	return nil
}

func (s Store) path(name string) string { return filepath.Join(s.Dir, "contexts", name) }
func (s Store) currentFile() string     { return filepath.Join(s.Dir, "current") }

func fileFault(name string, err error) error {
	return fault.Wrap(fault.Invalid, fmt.Errorf("context %q: %w", name, err))
}

// fileNames are those of a context, in the order of an archive.
func fileNames() []string { return []string{metaFile, caFile, certFile, keyFile} }
