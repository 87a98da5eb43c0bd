package house_test

import (
	"go/ast"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxLines is the longest a file may be: beyond it nobody reads it in one sitting.
const maxLines = 800

func TestPackages_HaveAComment(t *testing.T) {
	documented, packages := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		packages[s.dir()] = true
		if doc := s.syntax.Doc; doc != nil && (strings.HasPrefix(doc.Text(), "Package ") || strings.HasPrefix(doc.Text(), "Command ")) {
			documented[s.dir()] = true
		}
	}
	for dir := range packages {
		// The generated package gets its comment from api/doc.go like any other.
		if !documented[dir] {
			t.Errorf("%s has no package comment: add doc.go that says what it is for, and what it is not", dir)
		}
	}
}

func TestPackages_AreNamedForWhatTheyAre(t *testing.T) {
	vague := []string{"base", "common", "core", "helper", "helpers", "misc", "pkg", "shared", "types", "util", "utils"}
	for _, s := range sources(t) {
		for _, part := range strings.Split(s.dir(), "/") {
			if slices.Contains(vague, part) {
				t.Errorf("%s: %q says nothing: name the folder for its one idea", s.name, part)
			}
		}
	}
}

func TestFiles_CanBeReadInOneSitting(t *testing.T) {
	for _, s := range sources(t) {
		if !s.generated && s.lines > maxLines {
			t.Errorf("%s has %d lines, over %d: split it by idea", s.name, s.lines, maxLines)
		}
	}
}

func TestCode_RegistersNothingByInit(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		for _, decl := range s.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init runs where nobody sees it: call it from main or from a constructor", s.fset.Position(fn.Pos()))
			}
		}
	}
}

func TestTests_DoNotSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		ast.Inspect(s.syntax, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			fn, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := fn.X.(*ast.Ident); ok && pkg.Name == "time" && fn.Sel.Name == "Sleep" && !inBubble(s) {
				t.Errorf("%s: a sleep is a race with the machine: wait for the event, or use testing/synctest", s.fset.Position(call.Pos()))
			}
			return true
		})
	}
}

// inBubble reports whether the file's tests run in virtual time, where a sleep is exact and costs nothing.
func inBubble(s source) bool {
	return slices.ContainsFunc(s.syntax.Imports, func(spec *ast.ImportSpec) bool {
		return path.Base(strings.Trim(spec.Path.Value, `"`)) == "synctest"
	})
}

func TestStructs_HoldNoContext(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated || s.test {
			continue
		}
		ast.Inspect(s.syntax, func(node ast.Node) bool {
			fields, ok := node.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				sel, ok := field.Type.(*ast.SelectorExpr)
				if !ok {
					continue
				}
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "context" && sel.Sel.Name == "Context" {
					t.Errorf("%s: a stored context outlives its call: pass it to the methods", s.fset.Position(field.Pos()))
				}
			}
			return true
		})
	}
}

func TestTodos_NameAnIssue(t *testing.T) {
	for _, s := range sources(t) {
		for _, group := range s.syntax.Comments {
			for _, comment := range group.List {
				text := comment.Text
				if strings.Contains(text, "TO"+"DO") || strings.Contains(text, "FIX"+"ME") {
					t.Errorf("%s: a task without an issue is forgotten: file it, or do it", s.fset.Position(comment.Pos()))
				}
			}
		}
	}
}

func TestArchitecture_MapsEveryPackage(t *testing.T) {
	text, err := os.ReadFile(path.Join(root, "docs/ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			packages[s.dir()] = true
		}
	}
	var mapped []string
	for line := range strings.Lines(string(text)) {
		if dir, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") {
			mapped = append(mapped, dir)
		}
	}
	byElement := func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }
	if diff := cmp.Diff(slices.SortedFunc(maps.Keys(packages), byElement), mapped); diff != "" {
		t.Errorf("the code map of docs/ARCHITECTURE.md has not one line for each package, in order (-want +got):\n%s", diff)
	}
}

func TestDecisions_AreListedInOrder(t *testing.T) {
	names, err := filepath.Glob(path.Join(root, "docs/adr/[0-9]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path.Join(root, "docs/adr/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want, listed []string
	for _, name := range names { // Glob sorts them
		want = append(want, filepath.Base(name))
	}
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, "]("); ok && strings.HasPrefix(line, "| [") {
			name, _, _ := strings.Cut(rest, ")")
			listed = append(listed, name)
		}
	}
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("docs/adr/README.md does not list each decision once, in order (-want +got):\n%s", diff)
	}
}
