package vm

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/e2e/vm/suite"
)

var (
	kernel = flag.String("kernel", "", "directory with an unpacked Debian kernel package; make e2e-vm gives it")
	chosen = flag.String("suite", "", "run only the suites whose names contain this")
	tests  = flag.String("tests", "", "run only the tests that match this")
	keep   = flag.String("keep", "", "directory for the console and for what the suites print, as they run")
)

// bootTime bounds the whole life of the machine: about four times of what it takes on two cores that do nothing else.
const bootTime = 40 * time.Minute

// suiteOf is one package's tests in a machine.
type suiteOf struct {
	pkg string
	// run selects tests; all if empty.
	run string
	// skips are the tests that may skip in the machine, and why.
	skips map[string]string
}

// otherMachine is why the tests of SELinux skip where AppArmor is: a kernel has one of the two.
const otherMachine = "it is for the machine with SELinux"

// selinuxSuites are the tests of SELinux, and some that must pass where it enforces, too.
func selinuxSuites() []suiteOf {
	return []suiteOf{
		{pkg: "runtime/lsm", run: "SELinux"},
		{pkg: "runtime/supervisor", run: "SELinux|^TestInside|^TestExec_HasWhat"},
		{pkg: "agent"}, // whose containers all have labels here
		{pkg: "e2e", run: "^TestScripts$/^selinux$"},
	}
}

// suites are the packages whose behaviour depends on the kernel.
func suites() []suiteOf {
	return []suiteOf{
		{pkg: "runtime/cgroup"},
		{pkg: "runtime/memfs"},
		{pkg: "runtime/overlay", skips: map[string]string{
			"TestMount_AfterTheDiskHadAnError/by_path":   "the machine has no mkfs.ext4",
			"TestMount_ItsEndDoesNotSyncTheDisk/by_path": "it asks the kernel what is not synced, which is new in Linux 6.5",
		}},
		{pkg: "runtime/quota"},
		{pkg: "runtime/seccomp"},
		{pkg: "runtime/lsm", skips: map[string]string{"TestSELinuxLabels_AreOfOneContainer": otherMachine}},
		{pkg: "runtime/launch", skips: map[string]string{
			"TestCreate_SaysWhyTheChildFailedEarly": "the machine has no control groups of version 1, which a process enters itself",
		}},
		{pkg: "runtime/systrace"},
		{pkg: "runtime/supervisor", skips: map[string]string{
			"TestSELinux_KeepsContainersApart": otherMachine, "TestSELinux_LabelsWhatIsTheContainers": otherMachine,
			"TestSELinux_ConfinesCommands": otherMachine, "TestForeign_ContainersOfRuncBehaveAsOurs": "the machine has no runc",
			"TestShared_TheHostsAbstractSocketsAreClosed": "it needs Landlock of Linux 6.12",
		}},
		{pkg: "agent/network"},
		{pkg: "agent/executor"},
		{pkg: "agent", skips: map[string]string{
			"TestSELinux_NoTwoTasksHaveOneLabel": otherMachine, "TestSELinux_LabelsAreWhatTheServiceSays": otherMachine,
		}},
		{pkg: "e2e", run: "^TestScripts$/^(limits|service_secret)$"},
	}
}

// TestVM runs the suites in a machine with Debian's kernel. Every test that passes here, on the machine of whoever runs
// this, must pass there too; a test that skips there must be known to.
func TestVM(t *testing.T) {
	runMachine(t, suites(), "apparmor=1 lsm=landlock,yama,apparmor,bpf", nil)
}

// TestVM_SELinux runs the tests of SELinux where that enforces a policy that tells containers and the node apart.
func TestVM_SELinux(t *testing.T) {
	runMachine(t, selinuxSuites(), "lsm=landlock,yama,selinux,bpf", (*builder).policy)
}

// runMachine makes a machine, with more in it if there is more to do, and runs the suites that were chosen in it.
func runMachine(t *testing.T, suites []suiteOf, words string, more func(*builder)) {
	suites = slices.DeleteFunc(suites, func(s suiteOf) bool { return !strings.Contains(s.pkg, *chosen) })
	if len(suites) == 0 {
		t.Skip("no suite of this machine was chosen")
	}
	if *kernel == "" {
		t.Skip("needs a kernel: run make e2e-vm")
	}
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := Config{
		Kernel: *kernel, Guest: filepath.Join(dir, "guest"), Memory: 3072, Disk: 2048, Append: words,
		Files: map[string]string{},
	}
	if cfg.Busybox, err = exec.LookPath("busybox"); err != nil {
		t.Fatal(err)
	}
	b := &builder{T: t, source: source, dir: dir, cfg: &cfg}
	b.program(cfg.Guest, "./e2e/vm/guest")
	b.programs()
	for _, s := range suites {
		b.suite(s)
	}
	if more != nil {
		more(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	m, err := Build(ctx, dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	logs := dir
	if *keep != "" {
		logs = *keep
	}
	console := filepath.Join(logs, "console-"+t.Name())
	printed, err := os.Create(filepath.Join(logs, "output-"+t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	r := &report{suites: map[string]*outcome{}, printed: printed}
	if err := m.Boot(ctx, console, func(m suite.Message) { r.hear(t, m) }); err != nil {
		text, _ := os.ReadFile(console)
		t.Errorf("%v; its console:\n%s", err, text)
	}
	for _, s := range suites {
		t.Run(s.pkg, func(t *testing.T) { r.check(t, s) })
	}
}

// builder makes what goes into the machine.
type builder struct {
	*testing.T
	source, dir string
	cfg         *Config
}

func (b *builder) goTool(args ...string) {
	b.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = b.source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (b *builder) program(to, pkg string) {
	b.Helper()
	b.goTool("build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
}

// programs are those that tests build by themselves where there is a Go toolchain, and those of make build.
func (b *builder) programs() {
	b.Helper()
	helpers, err := filepath.Glob(filepath.Join(b.source, "*/testdata/*/main.go"))
	if err != nil {
		b.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(b.source, "*/*/testdata/*/main.go"))
	if err != nil {
		b.Fatal(err)
	}
	programs := filepath.Join(b.dir, "programs")
	for _, main := range append(helpers, deeper...) {
		dir, err := filepath.Rel(b.source, filepath.Dir(main))
		if err != nil {
			b.Fatal(err)
		}
		b.program(filepath.Join(programs, filepath.Base(dir)), "./"+dir)
	}
	b.program(filepath.Join(programs, "skep-runtime"), "./cmd/skep-runtime")
	b.cfg.Files["programs"] = programs
	for _, built := range []string{"skep", "skep-runtime", "skep-hello.tar"} {
		b.cfg.Files["src/bin/"+built] = filepath.Join(b.source, "bin", built)
	}
}

// categories are those of multi-category security, c0 to c1023.
const categories = 1024

// policy compiles the policy of SELinux, and says which of its labels are for containers.
func (b *builder) policy() {
	b.Helper()
	text, err := os.ReadFile("selinux/policy.conf")
	if err != nil {
		b.Fatal(err)
	}
	var all strings.Builder
	for n := range categories {
		fmt.Fprintf(&all, "category c%d;\n", n)
	}
	home := filepath.Join(b.dir, "selinux")
	files := map[string]string{
		"policy.conf": strings.Replace(string(text), "@CATEGORIES@\n", all.String(), 1),
		"config":      "SELINUX=enforcing\nSELINUXTYPE=skep\n",
		"skep/contexts/lxc_contexts": "process = \"system_u:system_r:container_t:s0\"\n" +
			"file = \"system_u:object_r:container_file_t:s0\"\nro_file = \"system_u:object_r:container_file_t:s0\"\n",
	}
	for name, content := range files {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	out, err := exec.Command("checkpolicy", "-M", "-U", "allow", "-c", "33", "-o", filepath.Join(home, "skep/policy"),
		filepath.Join(home, "policy.conf")).CombinedOutput()
	if err != nil {
		b.Fatalf("checkpolicy: %v\n%s", err, out)
	}
	b.cfg.Files["etc/selinux"] = home
}

func (b *builder) suite(s suiteOf) {
	b.Helper()
	binary := filepath.Join(b.dir, strings.ReplaceAll(s.pkg, "/", "-")+".test")
	b.goTool("test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./"+s.pkg)
	to := "suites/" + filepath.Base(binary)
	b.cfg.Files[to] = binary
	home := "src/" + s.pkg
	if data := filepath.Join(b.source, s.pkg, "testdata"); exists(data) {
		b.cfg.Files[home+"/testdata"] = data
	} else {
		b.cfg.Files[home+"/doc.go"] = filepath.Join(b.source, s.pkg, "doc.go")
	}
	run := s.run
	if *tests != "" {
		run = *tests
	}
	b.cfg.Suites = append(b.cfg.Suites, suite.Suite{
		Name: s.pkg, Program: "/" + to, Dir: "/" + home,
		Args: []string{"-test.v", "-test.timeout=25m", "-test.run=" + run},
		Env:  []string{"SKEP_TEST_PROGRAMS=/programs"},
	})
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// outcome is what became of a suite.
type outcome struct {
	output  strings.Builder
	passed  int
	skipped []string
	failed  []string
	ended   bool
	end     suite.Message
}

// report gathers what the machine says.
type report struct {
	suites  map[string]*outcome
	printed *os.File
}

// verdict is how go test -v tells of a test's end.
var verdict = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)

func (r *report) hear(t *testing.T, m suite.Message) {
	o := r.suites[m.Suite]
	if o == nil {
		o = &outcome{}
		r.suites[m.Suite] = o
	}
	switch m.Kind {
	case suite.Booted:
		t.Log("booted", m.Text)
	case suite.Broken:
		t.Error("the machine is broken:", m.Text)
	case suite.Begin:
		t.Log(m.Suite)
	case suite.End:
		o.ended, o.end = true, m
	case suite.Output:
		fmt.Fprintln(&o.output, m.Text)
		fmt.Fprintln(r.printed, m.Text)
		found := verdict.FindStringSubmatch(m.Text)
		switch {
		case found == nil:
		case found[1] == "PASS":
			o.passed++
		case found[1] == "SKIP":
			o.skipped = append(o.skipped, found[2])
		default:
			o.failed = append(o.failed, found[2])
		}
	}
}

// check fails the test if the suite did not run to its end, or not all of it passed.
func (r *report) check(t *testing.T, s suiteOf) {
	o := r.suites[s.pkg]
	if o == nil || !o.ended { // I2
		t.Fatal("did not end")
	}
	t.Logf("%d passed, %d failed, %d skipped, in %.0f s", o.passed, len(o.failed), len(o.skipped), o.end.Seconds)
	bad := o.end.Code != 0 || len(o.failed) > 0 || o.passed == 0 && *tests == ""
	for _, name := range o.skipped {
		if s.skips[name] == "" {
			t.Errorf("%s was skipped; it must run in the machine", name)
			bad = true
		}
	}
	if bad {
		t.Errorf("exit code %d %s, failed: %v\n%s", o.end.Code, o.end.Text, o.failed, o.output.String())
	}
}
