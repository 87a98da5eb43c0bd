package cli_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli"
	"github.com/skep-io/skep/internal/fault"
)

// update rewrites the golden outputs in the scripts.
var update = flag.Bool("update", false, "rewrite the outputs that scripts compare with")

// machine is one script's daemon and the state of its command line.
type machine struct {
	fake     *fake
	socket   string
	input    string
	exit     int
	terminal bool
}

type machineKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			m := &machine{fake: newFake(), socket: filepath.Join(t.TempDir(), "skep.sock")}
			m.fake.serve(t, m.socket, env.Defer)
			env.Setenv("SKEP_HOST", "unix://"+m.socket)
			env.Setenv("SKEP_CONFIG", filepath.Join(env.WorkDir, "config"))
			env.Values[machineKey{}] = m
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"skep": runSkep, "code": checkCode, "input": setInput, "fake": runFake, "terminal": setTerminal,
		},
	})
}

func machineOf(ts *testscript.TestScript) *machine { return ts.Value(machineKey{}).(*machine) }

// runSkep runs the command line in this process, against the script's daemon.
func runSkep(ts *testscript.TestScript, neg bool, args []string) {
	m := machineOf(ts)
	in := io.Reader(strings.NewReader(m.input))
	m.input = ""
	m.exit = cli.Main(context.Background(), inWorkDir(ts, args), in, ts.Stdout(), ts.Stderr(), m.options(ts.Getenv))
	if (m.exit != 0) != neg {
		ts.Fatalf("skep %s: exit code %d", strings.Join(args, " "), m.exit)
	}
}

func (m *machine) options(getenv func(string) string) cli.Options {
	return cli.Options{
		Version: "1.2.3", Now: now, Monitor: time.Nanosecond, RetryPause: time.Nanosecond,
		ApprovalPause: time.Nanosecond,
		LookupEnv: func(name string) (string, bool) {
			value := getenv(name)
			return value, value != ""
		},
		Environ: func() []string { return []string{"TAG=" + getenv("TAG")} },
		IsTerminal: func(stream any) bool {
			_, isInput := stream.(*strings.Reader)
			return isInput && m.terminal
		},
	}
}

// inWorkDir makes @NAME an absolute path in the script's folder, because the process has another working directory.
func inWorkDir(ts *testscript.TestScript, args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if out[i] = arg; strings.HasPrefix(arg, "@") {
			out[i] = ts.MkAbs(arg[1:])
		}
	}
	return out
}

// checkCode checks the exit code of the last command.
func checkCode(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(machineOf(ts).exit); got != args[0] {
		ts.Fatalf("exit code: got %s, want %s", got, args[0])
	}
}

// setInput gives the next command a file as its input.
func setInput(ts *testscript.TestScript, _ bool, args []string) {
	machineOf(ts).input = ts.ReadFile(args[0])
}

// setTerminal says whether the input is a person's terminal.
func setTerminal(ts *testscript.TestScript, _ bool, args []string) {
	machineOf(ts).terminal = args[0] == "on"
}

// runFake changes what the daemon does.
func runFake(ts *testscript.TestScript, _ bool, args []string) {
	f := machineOf(ts).fake
	f.mu.Lock()
	defer f.mu.Unlock()
	switch args[0] {
	case "locked":
		f.state, f.unlock = api.LocalNodeState_LOCAL_NODE_STATE_LOCKED, unlockKey
	case "active":
		f.becomeActive()
	case "damaged":
		f.state = api.LocalNodeState_LOCAL_NODE_STATE_ERROR
	case "node":
		f.addNode(args[1], args[2], api.Role_ROLE_WORKER)
	case "waiting":
		f.addWaiting(args[1], args[2])
	case "approve-after":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		f.approveAfter = n
	case "manager":
		f.addNode(args[1], args[2], api.Role_ROLE_MANAGER)
		f.nodes[args[1]].ManagerStatus = &api.ManagerStatus{Reachability: api.Reachability(api.Reachability_value["REACHABILITY_"+args[3]])}
	case "drain": // the tasks left, and what holds them up
		n, err := strconv.ParseUint(args[1], 10, 32)
		ts.Check(err)
		f.drainLeft, f.drainHeld = uint32(n), args[2]
	case "outrun":
		f.outrun = true
	case "node-warnings":
		f.nodeWarnings = args[1:]
	case "stats-gap":
		f.statsGap = args[1]
	case "slow":
		f.slowManager = args[1]
	case "people":
		f.people = append(f.people, args[1:]...)
	case "warn":
		f.warnings = append(f.warnings, args[1])
	case "end":
		ts.Check(f.endTask(args[1], args[2]))
	case "doomed":
		f.doomed = args[1]
	case "stuck":
		f.stuck = args[1]
	case "fail":
		f.faults[args[1]] = append(f.faults[args[1]], plannedFault(ts, args[2], args[3]))
	case "image":
		f.addImage(args[1:]...)
	case "log":
		f.logs = append(f.logs, logLine(len(f.logs), args[1], args[2]))
	case "missed":
		n, err := strconv.ParseUint(args[1], 10, 64)
		ts.Check(err)
		f.logs[len(f.logs)-1].GetLine().Missed = n
	case "gap":
		f.logs = append(f.logs, &api.ReadLogsResponse{
			Event: &api.ReadLogsResponse_Gap{Gap: &api.LogGap{NodeId: args[1], Reason: args[2]}},
		})
	case "node-state":
		f.nodes[args[1]].Status.State = api.NodeState(api.NodeState_value["NODE_STATE_"+args[2]])
	case "no-gaps":
		f.logs = slices.DeleteFunc(f.logs, func(e *api.ReadLogsResponse) bool { return e.GetGap() != nil })
	case "missed-in-the-end":
		n, err := strconv.ParseUint(args[1], 10, 64)
		ts.Check(err)
		f.logs = append(f.logs, &api.ReadLogsResponse{
			Event: &api.ReadLogsResponse_Line{Line: &api.LogLine{ServiceName: "web", Slot: 1, Missed: n}},
		})
	case "audit":
		f.note(args[1], args[2], args[3], args[4])
	case "forge":
		f.audit[1].Event.Caller = args[1]
	case "drop":
		f.auditDropped = 2
	case "uploaded":
		fmt.Fprintf(ts.Stdout(), "%s %d\n", f.reference, len(f.uploaded))
		ts.Check(writeUploaded(f.uploaded, ts.Stdout()))
	case "secret":
		fmt.Fprintf(ts.Stdout(), "%s\n", f.seenSecret)
	case "calls":
		printCalls(ts.Stdout(), f.calls)
		f.calls = nil
	default:
		ts.Fatalf("fake can't %s", args[0])
	}
}

func plannedFault(ts *testscript.TestScript, kind, text string) error {
	for k := fault.Internal; k <= fault.Unavailable; k++ {
		if strings.ReplaceAll(k.String(), " ", "-") == kind {
			return fault.Wrap(k, errors.New(text))
		}
	}
	ts.Fatalf("no fault is %s", kind)
	return nil
}

func logLine(n int, stream, text string) *api.ReadLogsResponse {
	line := &api.LogLine{
		TaskId: "task0000000000000000000n1", ServiceName: "web", Slot: 1, NodeId: "node1", NodeHostname: "m1",
		Time: timestamppb.New(born().Add(time.Duration(n) * time.Minute)), Stream: api.LogStream_LOG_STREAM_STDOUT, Data: []byte(text + "\n"),
	}
	if stream == "stderr" {
		line.Stream = api.LogStream_LOG_STREAM_STDERR
	}
	return &api.ReadLogsResponse{Event: &api.ReadLogsResponse_Line{Line: line}}
}

// printCalls writes the calls, each with a letter for its request id, and - for a call without one.
func printCalls(w io.Writer, calls []call) {
	letters := map[string]string{"": "-"}
	for _, c := range calls {
		if letters[c.requestID] == "" {
			letters[c.requestID] = string(rune('a' + len(letters) - 1))
		}
		fmt.Fprintf(w, "%s %s\n", c.method, letters[c.requestID])
	}
}
