package house_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// rules is docs/deps.rules, parsed.
type rules struct {
	// deny holds pairs {from, to}.
	deny [][2]string
	// siblings maps a folder to the packages below it that their siblings may import.
	siblings map[string][]string
}

// parseRules reads the rules; the format is described in the file itself.
func parseRules(text string) (rules, error) {
	out := rules{siblings: map[string][]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "#siblings "); ok {
			folder, shared, found := strings.Cut(rest, ":")
			if !found {
				return rules{}, fmt.Errorf("%q: want `#siblings FOLDER: SHARED…`", line)
			}
			out.siblings[folder] = strings.Fields(shared)
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			from, to, found := strings.Cut(part, "=>")
			if !found {
				return rules{}, fmt.Errorf("%q: want `from=>to`", part)
			}
			out.deny = append(out.deny, [2]string{from, to})
		}
	}
	return out, nil
}

// breach returns the rule that an import breaks, or "".
func (r rules) breach(from, to string) string {
	for _, rule := range r.deny {
		if below(from, rule[0]) && (below(to, rule[1]) || (rule[1] == "*" && !below(to, rule[0]))) {
			return rule[0] + "=>" + rule[1]
		}
	}
	for folder, shared := range r.siblings {
		a, b := child(from, folder), child(to, folder)
		if a != "" && b != "" && a != b && !slices.Contains(shared, b) {
			return "siblings " + folder
		}
	}
	return ""
}

func below(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// child returns the name of the package right below folder in which dir lies, or "".
func child(dir, folder string) string {
	rest, ok := strings.CutPrefix(dir, folder+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func TestImports_FollowDepsRules(t *testing.T) {
	text, err := os.ReadFile(path.Join(root, "docs/deps.rules"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRules(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.deny) == 0 || len(r.siblings) == 0 {
		t.Fatal("docs/deps.rules holds no rules")
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, to := range s.imports() {
			if rule := r.breach(s.dir(), to); rule != "" {
				t.Errorf("%s imports %s, against %s: move what both need below them, or hand it in as an interface", s.name, to, rule)
			}
		}
	}
}

func TestRules_CatchABreach(t *testing.T) {
	r, err := parseRules("a=>b,\nc=>*\n#siblings m: shared\n# comment\n")
	if err != nil {
		t.Fatal(err)
	}
	for imports, want := range map[[2]string]bool{
		{"a/x", "b/y"}: true, {"a", "ab"}: false, {"c", "a"}: true, {"c", "c/d"}: false, {"c/x", "c/d"}: false,
		{"m/one", "m/two"}: true, {"m/one", "m/shared"}: false, {"m/one/x", "m/one/y"}: false, {"m", "m/one"}: false,
	} {
		if got := r.breach(imports[0], imports[1]) != ""; got != want {
			t.Errorf("%s imports %s: got breach %v, want %v", imports[0], imports[1], got, want)
		}
	}
	if _, err := parseRules("a->b"); err == nil {
		t.Error("a malformed rule was accepted")
	}
}

func TestDependencies_AreListedWithAReason(t *testing.T) {
	mod, err := os.ReadFile(path.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	listed := dependencyReasons(t)
	for name, reason := range listed {
		if reason == "" {
			t.Errorf("docs/dependencies.txt: %s has no reason", name)
		}
	}
	for _, name := range directDependencies(string(mod)) {
		if _, ok := listed[name]; !ok {
			t.Errorf("go.mod requires %s: say in docs/dependencies.txt what for", name)
		}
		delete(listed, name)
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		t.Errorf("docs/dependencies.txt lists %s, which go.mod does not require", name)
	}
	if strings.Contains(string(mod), "replace ") {
		t.Error("go.mod has a replace: depend on a released version")
	}
}

// dependencyReasons is docs/dependencies.txt: what each module is for.
func dependencyReasons(t *testing.T) map[string]string {
	t.Helper()
	list, err := os.ReadFile(path.Join(root, "docs/dependencies.txt"))
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if name, reason, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && name != "#" {
			reasons[name] = strings.TrimSpace(reason)
		}
	}
	return reasons
}

// Each package that a program has is set up at each of its starts, whoever needs it.
func TestDependencies_OfTestsAreInNoProgram(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/...")
	command.Dir = root
	packages, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, reason := range dependencyReasons(t) {
		if !strings.HasPrefix(reason, "tests:") {
			continue
		}
		for line := range strings.Lines(string(packages)) {
			if below(strings.TrimSpace(line), name) {
				t.Errorf("a program has %s, which docs/dependencies.txt says is for tests", strings.TrimSpace(line))
			}
		}
	}
}

// directDependencies returns the modules that go.mod requires directly.
func directDependencies(mod string) []string {
	var out []string
	inBlock := false
	for line := range strings.Lines(mod) {
		line = strings.TrimSpace(line)
		switch {
		case line == "require (":
			inBlock = true
		case line == ")":
			inBlock = false
		case strings.HasSuffix(line, "// indirect"):
		case inBlock && line != "":
			out = append(out, strings.Fields(line)[0])
		case strings.HasPrefix(line, "require "):
			out = append(out, strings.Fields(line)[1])
		}
	}
	return out
}
