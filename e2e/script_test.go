package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-io/skep/e2e/lab"
	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/reference"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/quota"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// patience bounds every wait of a script: far more than anything takes, so that only a hang reaches it.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	lab.Main()
	flag.Parse()
	if err := waitTogether(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// waitTogether runs two parallel tests for each processor, unless -parallel says how many: they mostly wait for elections, back-offs
// and renewals.
func waitTogether() error {
	const name = "test.parallel"
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == name })
	if said {
		return nil
	}
	return flag.Set(name, strconv.Itoa(2*runtime.GOMAXPROCS(0)))
}

func TestScripts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs built programs and root: run without -short")
	}
	if missing := lab.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	programs, err := lab.ProgramsIn("../bin")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			network, err := lab.NewNetwork(env.WorkDir, programs)
			if err != nil {
				return err
			}
			running, requests := map[string]*background{}, new(traffic)
			env.Values[networkKey{}], env.Values[backgroundKey{}], env.Values[trafficKey{}] = network, running, requests
			env.Setenv("IMAGE", "skep.local/hello")
			env.Defer(func() {
				endAll(running)
				requests.stop()
				if env.T().(testing.TB).Failed() {
					showLogs(env.T().(testing.TB), network)
				}
				if err := network.Close(); err != nil {
					env.T().(testing.TB).Error(err)
				}
			})
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"machine": machine, "swarm": swarm, "skep": skep, "await": await, "capture": capture, "leader": leader, "daemon": daemon,
			"exits": exits, "killed": killed,
			"power": power, "cut": cut, "mend": mend, "renumber": renumber, "fetch": fetch, "disk": disk, "memory": memory,
			"typed": typed, "damage": damage, "sealed": sealed, "closed": closed, "flip": flip,
			"begin": begin, "interrupt": interrupt, "end": end, "from": from, "begin-from": beginFrom, "heard": heard,
			"program": program, "image": image, "mount": mount,
			"newroot": newroot, "expire": expire, "signed": signed, "traffic": trafficVerb,
		},
	})
}

// condition knows what of this machine scripts may ask for: quotas, which the disk of the machines' data has or not; selinux, where that
// enforces a policy that knows containers; and tun, a device that is open to all, as udev has it.
func condition(name string) (bool, error) {
	switch name {
	case "quotas":
		return quota.Check(os.TempDir()) == nil, nil
	case "tun":
		info, err := os.Stat("/dev/net/tun")
		return err == nil && info.Mode().Perm() == 0o666, nil
	case "selinux":
		return slices.Contains(lsm.Isolation(), lsm.SELinuxName), nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// networkKey finds the script's network among its values.
type networkKey struct{}

func network(ts *testscript.TestScript) *lab.Network { return ts.Value(networkKey{}).(*lab.Network) }

func find(ts *testscript.TestScript, name string) *lab.Machine {
	m := network(ts).Machine(name)
	if m == nil {
		ts.Fatalf("there is no machine %s", name)
	}
	return m
}

// logTail is how much of each daemon's log a failed script shows.
const logTail = 8 << 10

func showLogs(t testing.TB, network *lab.Network) {
	for _, m := range network.Machines() {
		text, err := os.ReadFile(m.LogFile())
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("%s:\n%s", m.Name, text[max(0, len(text)-logTail):])
	}
}

func deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func noNegation(ts *testscript.TestScript, neg bool) {
	if neg {
		ts.Fatalf("this verb can't be negated")
	}
}

func machine(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 0, "machine NAME [FLAG…]")
	m, err := network(ts).NewMachine(args[0], args[1:]...)
	ts.Check(err)
	ctx, cancel := deadline()
	defer cancel()
	ts.Check(m.Start(ctx))
}

func swarm(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 0, "swarm NAME…")
	for _, name := range args {
		machine(ts, false, []string{name})
	}
	ctx, cancel := deadline()
	defer cancel()
	ts.Check(network(ts).Swarm(ctx, args...))
}

func skep(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 1, "skep NAME ARG…")
	ctx, cancel := deadline()
	defer cancel()
	command := find(ts, args[0]).Command(ctx, args[1:]...)
	err := ts.Exec(command.Path, command.Args[1:]...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("skep %s: %v", strings.Join(args[1:], " "), err)
	case err == nil && neg:
		ts.Fatalf("skep %s succeeded", strings.Join(args[1:], " "))
	}
}

// exits runs a command that must end with an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 2, "exits CODE NAME ARG…")
	ctx, cancel := deadline()
	defer cancel()
	command := find(ts, args[1]).Command(ctx, args[2:]...)
	err := ts.Exec(command.Path, command.Args[1:]...)
	code := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("skep %s ended with exit code %d, want %s", strings.Join(args[2:], " "), code, args[0])
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 2, "await NAME REGEXP ARG…")
	out, err := awaitOutcome(find(ts, args[0]), neg, args[1], args[2:]...)
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), out)
}

// awaitOutput runs a command on a machine until what it prints matches, and returns that.
func awaitOutput(m *lab.Machine, expression string, args ...string) (string, error) {
	return awaitOutcome(m, false, expression, args...)
}

// awaitOutcome does that, or waits until it fails with an error that matches.
func awaitOutcome(m *lab.Machine, fails bool, expression string, args ...string) (string, error) {
	wanted, err := regexp.Compile("(?m)" + expression)
	if err != nil {
		return "", err
	}
	if wanted.MatchString("") && wanted.MatchString("x\n") {
		return "", fmt.Errorf("%s matches whatever is printed: write \\A\\z for nothing at all", expression)
	}
	ctx, cancel := deadline()
	defer cancel()
	for rest := shortPause; ; rest = min(2*rest, longPause) {
		out, err := m.Skep(ctx, args...)
		said := out
		if fails && err != nil {
			said = err.Error()
		}
		if (err != nil) == fails && wanted.MatchString(said) {
			return said, nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s: skep %s never printed %s: %v\n%s", m.Name, strings.Join(args, " "), wanted, err, out)
		}
		pauseFor(ctx, rest)
	}
}

// Times between two looks at something that a script waits for and that can only be asked. Each start of a program is work for the machine,
// so that looks get rarer while what they look for does not come.
const (
	shortPause = 50 * time.Millisecond
	longPause  = 400 * time.Millisecond
)

func pause(ctx context.Context) { pauseFor(ctx, shortPause) }

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 2, "capture VARIABLE NAME ARG…")
	ctx, cancel := deadline()
	defer cancel()
	out, err := find(ts, args[1]).Skep(ctx, args[2:]...)
	ts.Check(err)
	ts.Setenv(args[0], strings.TrimSpace(out))
}

func leader(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "leader VARIABLE NAME")
	ctx, cancel := deadline()
	defer cancel()
	m, err := network(ts).Leader(ctx, find(ts, args[1]))
	ts.Check(err)
	ts.Setenv(args[0], m.Name)
}

func daemon(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2 || len(args) > 2 && args[0] == "start", "daemon kill|stop NAME, or daemon start NAME [FLAG…]")
	m := find(ts, args[1])
	ctx, cancel := deadline()
	defer cancel()
	switch args[0] {
	case "kill":
		ts.Check(m.Kill())
	case "stop":
		ts.Check(m.Stop())
	case "start":
		m.AddFlags(args[2:]...)
		ts.Check(m.Start(ctx))
	default:
		ts.Fatalf("unknown: daemon %s", args[0])
	}
}

// killed ends a process of a machine, by its name, with SIGKILL. It waits until there is one.
func killed(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "killed NAME PROCESS")
	ctx, cancel := deadline()
	defer cancel()
	ts.Check((&crasher{machine: find(ts, args[0])}).kill(ctx, args[1]))
}

func power(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "power off|on NAME")
	m := find(ts, args[1])
	if args[0] == "off" {
		ts.Check(m.PowerOff())
		return
	}
	ts.Check(m.PowerOn())
	ctx, cancel := deadline()
	defer cancel()
	ts.Check(m.Start(ctx))
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 1, "cut NAME")
	ts.Check(network(ts).Cut(find(ts, args[0])))
}

func mend(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 1, "mend NAME")
	ts.Check(network(ts).Mend(find(ts, args[0])))
}

func renumber(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "renumber NAME NUMBER")
	number, err := strconv.ParseUint(args[1], 10, 8)
	ts.Check(err)
	ts.Check(network(ts).Renumber(find(ts, args[0]), int(number)))
}

// maxPage bounds what fetch reads.
const maxPage = 1 << 20

func fetch(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "fetch NAME URL")
	ctx, cancel := deadline()
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: find(ts, args[0]).Dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	ts.Check(err)
	response, err := client.Do(request)
	for !neg && errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil { // a program listens a little after it has begun
		pause(ctx)
		response, err = client.Do(request)
	}
	if neg {
		if err == nil {
			_ = response.Body.Close()
			ts.Fatalf("fetch %s succeeded", args[1])
		}
		return
	}
	ts.Check(err)
	defer response.Body.Close()
	_, err = io.Copy(ts.Stdout(), io.LimitReader(response.Body, maxPage))
	ts.Check(err)
}

func disk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "disk NAME TEXT")
	ctx, cancel := deadline()
	defer cancel()
	found, err := search(find(ts, args[0]).Dir, []byte(args[1]))
	for err == nil && found == "" && !neg && ctx.Err() == nil {
		pause(ctx)
		found, err = search(find(ts, args[0]).Dir, []byte(args[1]))
	}
	ts.Check(err)
	switch {
	case found == "" && !neg:
		ts.Fatalf("no file of %s holds the text", args[0])
	case found != "" && neg:
		ts.Fatalf("%s holds the text", found)
	}
}

func memory(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "memory NAME TEXT")
	found, err := find(ts, args[0]).MemoryHolds([]byte(args[1]))
	ts.Check(err)
	switch {
	case found == "" && !neg:
		ts.Fatalf("no process of %s holds the text", args[0])
	case found != "" && neg:
		ts.Fatalf("%s on %s holds the text", found, args[0])
	}
}

// search returns a file below dir that holds the text, or "".
func search(dir string, text []byte) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && bytes.Contains(data, text) {
			found = name
			return filepath.SkipAll
		}
		return err
	})
	return found, err
}

func typed(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 2, "typed NAME INPUT ARG…")
	ctx, cancel := deadline()
	defer cancel()
	command := find(ts, args[0]).Command(ctx, args[2:]...)
	var out, errs strings.Builder
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(args[1]+"\n"), &out, &errs
	err := command.Run()
	fmt.Fprint(ts.Stdout(), out.String())
	fmt.Fprint(ts.Stderr(), errs.String())
	switch {
	case err != nil && !neg:
		ts.Fatalf("skep %s: %v", strings.Join(args[2:], " "), err)
	case err == nil && neg:
		ts.Fatalf("skep %s succeeded", strings.Join(args[2:], " "))
	}
}

// damage flips a byte of what a log holds last; its daemon must not run.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 1, "damage NAME")
	segments, err := filepath.Glob(filepath.Join(find(ts, args[0]).DataDir(), "raft", "log-*"))
	ts.Check(err)
	if len(segments) == 0 {
		ts.Fatalf("%s has no log", args[0])
	}
	last := segments[len(segments)-1]
	content, err := os.ReadFile(last)
	ts.Check(err)
	content[len(bytes.TrimRight(content, "\x00"))-1] ^= 1 << 7
	ts.Check(os.WriteFile(last, content, 0o600))
}

// closed checks that nothing listens at an address.
func closed(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "closed NAME HOST:PORT")
	ctx, cancel := deadline()
	defer cancel()
	conn, err := find(ts, args[0]).Dial(ctx, "tcp", args[1])
	if err == nil {
		err = conn.Close()
	}
	if refused := errors.Is(err, syscall.ECONNREFUSED); refused == neg {
		ts.Fatalf("dial %s: %v", args[1], err)
	}
}

// program builds a static program of the tests.
func program(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "program NAME FILE")
	ctx, cancel := deadline()
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", ts.MkAbs(args[1]), "./testdata/"+args[0])
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build %s: %v: %s", args[0], err, out)
	}
}

// mount runs mount(8) on a machine.
func mount(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 1, "mount NAME ARG…")
	pid := strconv.Itoa(find(ts, args[0]).PID())
	ts.Check(ts.Exec("nsenter", append([]string{"--target", pid, "--mount", "mount"}, args[1:]...)...))
}

// image writes an image with some files, which may be run.
func image(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) > 2, "image FILE REFERENCE CONFIG [PATH=FILE…]")
	ref, err := reference.Parse(args[1])
	ts.Check(err)
	layout := archive.Layout{Reference: ref}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &layout.Config))
	for _, arg := range args[3:] {
		path, file, _ := strings.Cut(arg, "=")
		content, err := os.ReadFile(ts.MkAbs(file))
		ts.Check(err)
		layout.Files = append(layout.Files, archive.File{Path: path, Mode: 0o755, Data: content})
	}
	out, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = archive.WriteLayout(out, layout)
	ts.Check(errors.Join(err, out.Close()))
}

// flip copies a file with one bit changed, in the middle of it.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "flip FILE COPY")
	content := []byte(ts.ReadFile(args[0]))
	content[len(content)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), content, 0o600))
}

// sealed waits until an unlock key opens a manager's store.
func sealed(ts *testscript.TestScript, neg bool, args []string) {
	noNegation(ts, neg)
	usage(ts, len(args) == 2, "sealed NAME UNLOCK-KEY")
	ts.Check(awaitSealed(find(ts, args[0]), args[1]))
}

// awaitSealed waits until an unlock key opens a manager's store.
func awaitSealed(m *lab.Machine, unlockKey string) error {
	kek, err := seal.ParseUnlockKey(unlockKey)
	if err != nil {
		return err
	}
	dir := filepath.Join(m.DataDir(), "raft")
	cluster, _, err := store.Inspect(vfs.OS{}, dir)
	if err != nil {
		return err
	}
	ctx, cancel := deadline()
	defer cancel()
	for {
		_, err := seal.OpenRing(vfs.OS{}, filepath.Join(dir, "keys"), cluster, kek)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the key never opened the store of %s: %w", m.Name, err)
		}
		pause(ctx)
	}
}
