package house_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAcceptance_NamesTestsThatAreThere holds docs/acceptance.md to the tests: each line once, in the order of its table, with tests that there are.
func TestAcceptance_NamesTestsThatAreThere(t *testing.T) {
	text, err := os.ReadFile(path.Join(root, "docs/acceptance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range checkAcceptance(string(text), testExists(t)) {
		t.Error("docs/acceptance.md: " + problem)
	}
}

// TestAcceptance_CatchesMistakes: the check finds what it is for.
func TestAcceptance_CatchesMistakes(t *testing.T) {
	exists := testExists(t)
	for name, want := range map[string]bool{
		"internal/house.TestAcceptance_CatchesMistakes":            true,
		"e2e.TestScripts/init_join":                                true,
		"manager/scheduler.TestScript/faulty.txt":                  true,
		"internal/house.TestAcceptance_Catches":                    false,
		"manager.TestAcceptance_CatchesMistakes":                   false,
		"e2e.TestScripts/init":                                     false,
		"manager/scheduler.TestScript/faulty":                      false,
		"internal/house.TestAcceptance_CatchesMistakes/faulty.txt": false,
	} {
		if got := exists(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	var whole strings.Builder
	for _, group := range acceptanceNumbers {
		whole.WriteString("\n## Some\n\n| | what | shown by |\n|---|---|---|\n")
		for n := group[0]; n <= group[1]; n++ {
			fmt.Fprintf(&whole, "| %d | it does | `e2e.TestScripts/init_join` |\n", n)
		}
	}
	good := whole.String()
	line := func(n int) string { return fmt.Sprintf("| %d | it does | `e2e.TestScripts/init_join` |\n", n) }
	for what, text := range map[string]string{
		"":                       good,
		"line 7 is missing":      strings.Replace(good, line(7), "", 1),
		"line 7 is there twice":  strings.Replace(good, line(7), line(7)+line(7), 1),
		"line 8 is not in order": strings.Replace(good, line(8)+line(9), line(9)+line(8), 1),
		"line 24 is none":        strings.Replace(good, line(23), line(23)+line(24), 1),
		"line 7 names no test":   strings.Replace(good, line(7), "| 7 | it does | |\n", 1),
		"line 7: there is no test e2e.TestScripts/gone_by": strings.Replace(good, line(7), "| 7 | it does | `e2e.TestScripts/gone_by` |\n", 1),
	} {
		got := strings.Join(checkAcceptance(text, exists), "; ")
		if got != what {
			t.Errorf("got %q, want %q", got, what)
		}
	}
}

// acceptanceNumbers are the first and last numbers of the lines that docs/acceptance.md has.
var acceptanceNumbers = [][2]int{{1, 23}, {63, 121}, {134, 145}}

// absent is the section of the lines that have no test, but a reason.
const absent = "Not there yet"

var acceptanceTest = regexp.MustCompile("`([^`]+\\.Test[^`]*)`")

// checkAcceptance returns what is wrong with the document.
func checkAcceptance(text string, exists func(name string) bool) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	seen := map[int]bool{}
	section, last := "", 0
	for text := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(text, "## "); ok {
			section, last = strings.TrimSpace(title), 0
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(text), "|"), "|")
		n, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil || !strings.HasPrefix(text, "|") {
			continue
		}
		switch {
		case !isAcceptance(n):
			problem("line %d is none", n)
			continue
		case seen[n]:
			problem("line %d is there twice", n)
		case n < last:
			problem("line %d is not in order", n)
		}
		seen[n], last = true, n
		if section == absent {
			continue
		}
		names := acceptanceTest.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(names) == 0 {
			problem("line %d names no test", n)
		}
		for _, name := range names {
			if !exists(name[1]) {
				problem("line %d: there is no test %s", n, name[1])
			}
		}
	}
	for _, group := range acceptanceNumbers {
		for n := group[0]; n <= group[1]; n++ {
			if !seen[n] {
				problem("line %d is missing", n)
			}
		}
	}
	return problems
}

func isAcceptance(n int) bool {
	for _, group := range acceptanceNumbers {
		if group[0] <= n && n <= group[1] {
			return true
		}
	}
	return false
}

// testExists returns a function that reports whether there is a test FOLDER.TestName, or FOLDER.TestName/FILE of one that runs the scripts in
// its folder's testdata: the file's name, where it ends in .txtar without that.
func testExists(t *testing.T) func(name string) bool {
	t.Helper()
	tests := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		for _, decl := range s.syntax.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[s.dir()+"."+f.Name.Name] = true
			}
		}
	}
	return func(name string) bool {
		folder, test, _ := strings.Cut(name, ".")
		test, script, ofScript := strings.Cut(test, "/")
		if !tests[folder+"."+test] {
			return false
		}
		if !ofScript {
			return true
		}
		return hasScript(path.Join(root, folder, "testdata"), script)
	}
}

func hasScript(folder, script string) bool {
	found := false
	_ = filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		found = found || err == nil && strings.TrimSuffix(entry.Name(), ".txtar") == script
		return nil
	})
	return found
}
