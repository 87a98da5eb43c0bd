package house_test

import (
	"debug/elf"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// modulePath prefixes the import paths of our packages, and root is where the module starts, seen from this package.
const (
	modulePath = "github.com/skep-io/skep"
	root       = "../.."
)

// source is one parsed Go file.
type source struct {
	// name is the file's path below the module's root, with slashes.
	name string
	// lines is the number of lines.
	lines     int
	generated bool
	test      bool
	syntax    *ast.File
	fset      *token.FileSet
}

// dir returns the folder of the file's package.
func (s source) dir() string { return path.Dir(s.name) }

// imports returns the folders of our own packages that the file imports.
func (s source) imports() []string {
	var out []string
	for _, spec := range s.syntax.Imports {
		if rest, ok := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), modulePath+"/"); ok {
			out = append(out, rest)
		}
	}
	return out
}

// sources returns every Go file of the module, parsed once; tools is a module of its own.
func sources(t *testing.T) []source {
	t.Helper()
	out, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(out, func(s source) bool { return s.dir() == "internal/house" }) {
		t.Fatal("the walk did not find this package: the rules would hold for nothing")
	}
	return out
}

// TestTree_HasNoPrograms: what is built belongs in bin/, which is nobody's source.
func TestTree_HasNoPrograms(t *testing.T) {
	out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("this needs git and the repository: %v", err)
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if !slices.Contains(names, "go.mod") {
		t.Fatal("the list of files is not that of the module")
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) { // being removed
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		start := make([]byte, len(elf.ELFMAG))
		if _, err := io.ReadFull(f, start); err == nil && string(start) == elf.ELFMAG {
			t.Errorf("%s is a program: remove it", name)
		}
		f.Close()
	}
}

// parsed is the parsed module, for all tests.
var parsed = sync.OnceValues(func() ([]source, error) {
	var out []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if below == "tools" || entry.Name() == "testdata" || (below != "." && strings.HasPrefix(entry.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, name, data, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{
			name: filepath.ToSlash(below), lines: strings.Count(string(data), "\n"), generated: ast.IsGenerated(syntax),
			test: strings.HasSuffix(name, "_test.go"), syntax: syntax, fset: fset,
		})
		return nil
	})
	return out, err
})
