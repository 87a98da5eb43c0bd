// Command skep-runtime is the parent of every container on a node, and a runtime of OCI bundles for container engines.
//
//	skep-runtime supervise --root DIR --socket PATH [--cgroup-parent NAME] [--runtime PATH] [--kill-on-exit]
//	skep-runtime keep --root DIR
//	skep-runtime [--root DIR] [--log FILE] [--log-format text|json] create|start|state|kill|pause|resume|delete|run|exec|ps|events|features|spec ...
//
// The supervisor prints one line, "ready PATH", when clients can connect, and logs to standard error. On SIGTERM and SIGINT it
// ends; containers run on, and the next supervisor with the same root takes them over, unless --kill-on-exit is given.
//
// The keeper is started by skep daemon, and starts supervisors when that asks it to. Exits and output of containers are not lost
// when the supervisor is killed (package runtime/keeper). A supervisor works without it, too.
//
// The other commands are those of runc, so that dockerd --add-runtime and podman --runtime can call them; package
// runtime/bundle says what they do. They need no supervisor.
//
// Exit status: 0 after a signal, 1 on an error, 2 on wrong usage; of run, the program's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/sealed"
	"github.com/skep-io/skep/runtime/supervisor"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: skep-runtime supervise --root DIR --socket PATH [--cgroup-parent NAME] [--runtime PATH] [--kill-on-exit]
       skep-runtime keep --root DIR
       skep-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND [ARGS]
           with create, start, state, kill, pause, resume, delete, run, exec, ps, events, features or spec, as runc has them
       skep-runtime version
`

func run(args []string, out, errs io.Writer) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "supervise":
		return supervise(args[1:], out, errs)
	case "copy": // for the supervisor only, which says what that is
		return copyFiles(args[1:], os.Stdin, out, errs)
	case "keep":
		return keep(args[1:], errs)
	case forkerCommand:
		err := sealed.SetName("skep-runtime") // by which package systrace knows the children, too
		if err == nil {
			err = launch.ServeForks(args[1:])
		}
		if err != nil {
			fmt.Fprintln(errs, "skep-runtime:", err)
			return 1
		}
		return 0
	case "help", "-h", "--help":
		fmt.Fprint(out, usage)
		return 0
	case "version", "--version":
		fmt.Fprintln(out, "skep-runtime version", version())
		fmt.Fprintln(out, "spec:", specs.Version)
		return 0
	default:
		if status, found := oci(args, out, errs); found {
			return status
		}
		fmt.Fprint(errs, usage)
		return 2
	}
}

// forkerCommand is for the supervisor: it starts itself with it.
const forkerCommand = "fork"

// version is what the build recorded.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// flags reads the arguments of supervise.
func flags(args []string, errs io.Writer) (supervisor.Config, error) {
	var cfg supervisor.Config
	f := flag.NewFlagSet("skep-runtime supervise", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&cfg.Root, "root", "", "directory of the supervisor's files, on a disk")
	f.StringVar(&cfg.Socket, "socket", "", "where clients connect")
	f.StringVar(&cfg.CgroupParent, "cgroup-parent", "skep", "control group of all containers")
	f.StringVar(&cfg.Runtime, "runtime", "", "OCI runtime that creates the containers, such as /usr/sbin/runc; empty for our own")
	f.BoolVar(&cfg.KillOnExit, "kill-on-exit", false, "kill all containers when the supervisor ends")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	if f.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return cfg, cfg.Validate()
}

func supervise(args []string, out, errs io.Writer) int {
	cfg, err := flags(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errs, "skep-runtime:", err)
		return 2
	}
	cfg.Logger = slog.New(slog.NewJSONHandler(errs, nil))
	cfg.Ready = func() { fmt.Fprintln(out, "ready", cfg.Socket) }
	if err := serve(cfg); err != nil {
		fmt.Fprintln(errs, "skep-runtime:", err)
		return 1
	}
	return 0
}

func serve(cfg supervisor.Config) error {
	// Whoever reads the output may go away; that must not end the supervisor.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	if err := sealed.Exec("skep-runtime"); err != nil { // comes back here, from memory
		return err
	}
	debug.SetGCPercent(gcPercent)
	protect(cfg.Logger, "skep-runtime")
	cfg.Forker = []string{"/proc/self/exe", forkerCommand}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := receive(&cfg); err != nil {
		return err
	}
	for {
		next, err := superviseOnce(ctx, cfg)
		if next == nil || err != nil {
			return err
		}
		// It comes back only if the program can't be run. Then this one goes on.
		cfg.Logger.Error("supervisor not replaced", "program", next.Program, "error", replace(next))
		cfg.Handover = next
	}
}

// superviseOnce supervises until ctx ends or another program is to take over.
func superviseOnce(ctx context.Context, cfg supervisor.Config) (*supervisor.Handover, error) {
	s, err := supervisor.New(cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	err = s.Run(ctx)
	return s.Next(), err
}

// handoverVariable names the descriptor that the program before this one passed.
const handoverVariable = "SKEP_RUNTIME_HANDOVER"

// receive takes what the program before this one passed.
func receive(cfg *supervisor.Config) error {
	text := os.Getenv(handoverVariable)
	if text == "" {
		return nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%s: %w", handoverVariable, err)
	}
	if err := os.Unsetenv(handoverVariable); err != nil {
		return err
	}
	cfg.Handover, err = supervisor.Receive(fd)
	return err
}

// replace puts the next program in the place of this one.
func replace(next *supervisor.Handover) error {
	fd, err := next.Pass()
	if err != nil {
		return err
	}
	err = sealed.Replace("skep-runtime", next.Program, append(os.Environ(), fmt.Sprintf("%s=%d", handoverVariable, fd)))
	return errors.Join(err, next.Keep(fd))
}

// gcPercent lets little garbage pile up: a small process on every node is worth more than the time that collecting it takes.
const gcPercent = 40

// oomScore keeps the kernel from choosing the supervisor, whose end would cost the exit codes of all containers.
const oomScore = "-999"

// protect keeps the supervisor or the keeper out of harm's way, as far as it may, and gives it a name among the processes: run
// from memory it would be known by the number of a descriptor.
func protect(logger *slog.Logger, name string) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0); err != nil {
		logger.Warn("the kernel may kill this process when memory runs out", "process", name, "error", err)
	}
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		logger.Warn("no name among the processes", "process", name, "error", err)
	}
	// A session of its own, so that a signal to the terminal of whoever started it does not reach it. That fails for
	// a process that was started from a shell, where such signals are meant for it.
	_, _ = unix.Setsid()
	unix.Umask(0o077)
}
