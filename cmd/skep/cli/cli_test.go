package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli"
	"github.com/skep-io/skep/internal/fault"
)

// start serves a fake that is a manager, and returns it with options that reach it.
func start(t *testing.T) (*fake, cli.Options) {
	t.Helper()
	m := &machine{fake: newFake(), socket: filepath.Join(t.TempDir(), "skep.sock")}
	m.fake.becomeActive()
	m.fake.serve(t, m.socket, t.Cleanup)
	return m.fake, m.options(func(name string) string { return map[string]string{"SKEP_HOST": "unix://" + m.socket}[name] })
}

// onLine calls a function once, when what is written holds a text.
type onLine struct {
	bytes.Buffer
	text string
	call func()
}

func (w *onLine) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.call != nil && strings.Contains(w.String(), w.text) {
		w.call()
		w.call = nil
	}
	return n, err
}

func TestWait_SaysOnInterruptThatTheServiceGoesOn(t *testing.T) {
	f, opts := start(t)
	f.stuck = "no suitable node"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &onLine{text: "1/1: no suitable node", call: cancel}
	var errOut bytes.Buffer
	code := cli.Main(ctx, []string{"service", "create", "--name", "web", "app"}, nil, out, &errOut, opts)
	if code != 130 {
		t.Errorf("exit code: got %d, want 130", code)
	}
	id, _, _ := strings.Cut(out.String(), "\n")
	want := "Operation continuing in background.\nUse `skep service ps " + id + "` to check progress.\n"
	if errOut.String() != want {
		t.Errorf("got %q, want %q", errOut.String(), want)
	}
}

func TestWait_RedrawsATerminal(t *testing.T) {
	_, opts := start(t)
	opts.IsTerminal = func(any) bool { return true }
	var out bytes.Buffer
	if code := cli.Main(t.Context(), []string{"service", "create", "--replicas", "2", "app"}, nil, &out, io.Discard, opts); code != 0 {
		t.Fatalf("exit code %d: %s", code, &out)
	}
	for _, want := range []string{"\x1b[4A", "2/2: running   [=====", "verify: Service "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}

func TestWait_OutlastsADaemonThatGoesAway(t *testing.T) {
	f, opts := start(t)
	f.faults["WatchService"] = []error{
		fault.New(fault.Unavailable, "restarting"), fault.NewNotLeader(""), fault.New(fault.NotFound, "not heard of yet"),
	}
	if code := cli.Main(t.Context(), []string{"service", "create", "app"}, nil, io.Discard, os.Stderr, opts); code != 0 {
		t.Errorf("exit code: got %d", code)
	}
}

func TestWait_EndsWhenTheServiceIsRemoved(t *testing.T) {
	f, opts := start(t)
	f.stuck = "no suitable node"
	out := &onLine{text: "1/1: no suitable node", call: func() {
		_, _ = f.RemoveService(context.Background(), &api.RemoveServiceRequest{Service: "web"})
	}}
	var errOut bytes.Buffer
	if code := cli.Main(t.Context(), []string{"service", "create", "--name=web", "app"}, nil, out, &errOut, opts); code != 3 {
		t.Errorf("exit code: got %d, want 3: %s", code, &errOut)
	}
}

func TestSecret_HasALimit(t *testing.T) {
	f, opts := start(t)
	for size, want := range map[int]int{512000: 0, 512001: 5, 0: 5} {
		var errOut bytes.Buffer
		value := strings.Repeat("s", size)
		name := fmt.Sprintf("s%d", size)
		if code := cli.Main(t.Context(), []string{"secret", "create", name, "-"}, strings.NewReader(value), io.Discard, &errOut, opts); code != want {
			t.Errorf("%d bytes: exit code %d, want %d: %s", size, code, want, &errOut)
		}
		if strings.Contains(errOut.String(), "sss") {
			t.Errorf("%d bytes: the value was printed", size)
		}
	}
	if len(f.seenSecret) != 512000 {
		t.Errorf("the largest secret arrived with %d bytes", len(f.seenSecret))
	}
}

func TestMain_ReportsErrorsOfOtherCommandsAlthoughInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	command := &cobra.Command{Use: "daemon", RunE: func(*cobra.Command, []string) error {
		cancel()
		return fault.New(fault.Precondition, "the data folder is in use")
	}}
	var errOut bytes.Buffer
	code := cli.Main(ctx, []string{"daemon"}, nil, io.Discard, &errOut, cli.Options{Commands: []*cobra.Command{command}})
	if code != 6 || errOut.String() != "skep: daemon: the data folder is in use\n" {
		t.Errorf("got %d, %q", code, errOut.String())
	}
}

func TestLogs_FollowingEndsQuietly(t *testing.T) {
	f, opts := start(t)
	if _, err := f.CreateService(t.Context(), &api.CreateServiceRequest{Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"},
	}}); err != nil {
		t.Fatal(err)
	}
	f.logs = append(f.logs, logLine(0, "stdout", "hello"))
	f.holdLogs = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &onLine{text: "hello", call: cancel}
	var errOut bytes.Buffer
	if code := cli.Main(ctx, []string{"service", "logs", "-f", "web"}, nil, out, &errOut, opts); code != 130 || errOut.Len() > 0 {
		t.Errorf("got %d, %q", code, errOut.String())
	}
}

// TestDocs_ListEveryExitCode keeps docs/cli.md and the help the same (I3).
func TestDocs_ListEveryExitCode(t *testing.T) {
	page, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var help bytes.Buffer
	cli.Main(t.Context(), nil, nil, &help, io.Discard, cli.Options{})
	rows := func(pattern, text string) map[string]string {
		out := map[string]string{}
		for _, row := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			out[row[1]] = row[2]
		}
		return out
	}
	_, codes, _ := strings.Cut(help.String(), "Exit codes:")
	want := rows(`(?m)^ +(\d+)  (.*)$`, codes)
	if diff := cmp.Diff(want, rows(`(?m)^\| (\d+) \| (.*) \|$`, string(page))); diff != "" || len(want) < 10 {
		t.Errorf("docs/cli.md differs from the help: %s", diff)
	}
}

// TestCommands_ExplainThemselves walks every command: each has a line of help, and its flags have one.
func TestCommands_ExplainThemselves(t *testing.T) {
	commands(cli.New(nil, io.Discard, io.Discard, cli.Options{}), func(path string, cmd *cobra.Command) {
		var out bytes.Buffer
		if code := cli.Main(t.Context(), append(strings.Fields(path), "--help"), nil, &out, io.Discard, cli.Options{}); code != 0 {
			t.Errorf("skep %s --help: exit code %d", path, code)
		}
		if cmd.Short == "" || !strings.Contains(out.String(), "Usage:  skep "+path) {
			t.Errorf("skep %s has no help:\n%s", path, &out)
		}
	})
}

func TestAges_AreReckonedFromTheClockGiven(t *testing.T) {
	_, opts := start(t)
	opts.Now = func() time.Time { return born().Add(49 * time.Hour) }
	var out bytes.Buffer
	if cli.Main(t.Context(), []string{"secret", "create", "a", "-"}, strings.NewReader("x"), io.Discard, io.Discard, opts) != 0 {
		t.Fatal("secret create failed")
	}
	cli.Main(t.Context(), []string{"secret", "ls", "--format", "{{.CreatedAt}}"}, nil, &out, io.Discard, opts)
	if out.String() != "2 days ago\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestInput_EndsOnInterrupt(t *testing.T) {
	for name, args := range map[string][]string{
		"secret": {"secret", "create", "db", "-"}, "image": {"image", "load"}, "unlock key": {"swarm", "unlock"},
	} {
		t.Run(name, func(t *testing.T) {
			f, opts := start(t)
			f.state = api.LocalNodeState_LOCAL_NODE_STATE_LOCKED
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			in, silent := io.Pipe()
			defer silent.Close()
			var errOut bytes.Buffer
			code := cli.Main(ctx, args, &onRead{in, cancel}, io.Discard, &errOut, opts)
			if code != 130 || errOut.String() != "skep: interrupted\n" {
				t.Errorf("got %d, %q", code, errOut.String())
			}
		})
	}
}

// onRead calls a function before each read.
type onRead struct {
	io.Reader
	call func()
}

func (r *onRead) Read(p []byte) (int, error) {
	r.call()
	return r.Reader.Read(p)
}

func TestLoad_StopsWhenTheDaemonWantsNoMore(t *testing.T) {
	f, opts := start(t)
	f.faults["LoadImage"] = []error{fault.New(fault.Exhausted, "the disk is full")}
	var errOut bytes.Buffer
	endless := io.LimitReader(zeros{}, 1<<40)
	if code := cli.Main(t.Context(), []string{"image", "load"}, endless, io.Discard, &errOut, opts); code != 10 {
		t.Errorf("got %d, %s", code, &errOut)
	}
}

// zeros is a stream without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestWait_EndsWithTasksThatAreNotRestarted(t *testing.T) {
	f, opts := start(t)
	f.stuck = "no suitable node"
	out := &onLine{text: "1/1: no suitable node", call: func() {
		_ = f.change(func() error {
			for id, task := range f.tasks {
				failed := proto.Clone(task).(*api.Task)
				failed.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
				failed.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED, Err: "task: non-zero exit (7)"}
				f.tasks[id] = failed
			}
			return nil
		})
	}}
	var errOut bytes.Buffer
	code := cli.Main(t.Context(), []string{"service", "create", "--restart-condition=none", "app"}, nil, out, &errOut, opts)
	want := "skep: service create: the tasks ended and are not restarted: task: non-zero exit (7)\n" +
		"Run 'skep service ps' and 'skep service logs' to see why, and 'skep service update' to try again.\n"
	if code != 11 || errOut.String() != want {
		t.Errorf("got %d, %q, want 11, %q", code, errOut.String(), want)
	}
}

func TestStackDeploy_SaysOnInterruptWhatIsNotMade(t *testing.T) {
	f, opts := start(t)
	f.stuck = "no suitable node"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := strings.NewReader("services: {a: {image: x}, b: {image: x, depends_on: [a]}, c: {image: x, depends_on: [b]}}")
	out := &onLine{text: "shop_a: 0 out of 1 tasks running: no suitable node", call: cancel}
	var errOut bytes.Buffer
	if code := cli.Main(ctx, []string{"stack", "deploy", "-c", "-", "shop"}, in, out, &errOut, opts); code != 130 {
		t.Errorf("exit code: got %d, want 130", code)
	}
	want := "Stopped before these services of stack shop were as the file says: shop_b, shop_c.\nThe same deploy goes on.\n"
	if errOut.String() != want {
		t.Errorf("got %q, want %q", errOut.String(), want)
	}
}
