package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/skep-io/skep/runtime/bundle"
	"github.com/skep-io/skep/runtime/console"
	"github.com/skep-io/skep/runtime/sealed"
)

// defaultRoot is where containers of the OCI command line are kept.
const defaultRoot = "/run/skep-oci"

// command is one run of the OCI command line: what its global flags say, and where it writes.
type command struct {
	root, log, format string
	out, errs         io.Writer
	runtime           *bundle.Runtime
}

// verb is one command. It gives the exit status.
type verb func(c *command, ctx context.Context, args []string) (int, error)

// verbs are the commands of the OCI command line.
func verbs() map[string]verb {
	return map[string]verb{
		"create": (*command).create, "start": (*command).start, "state": (*command).state, "kill": (*command).kill,
		"delete": (*command).delete, "run": (*command).runContainer, "exec": (*command).exec, "ps": (*command).ps, "events": (*command).events,
		"pause": (*command).pause, "resume": (*command).resume, "features": (*command).features, "spec": (*command).spec,
	}
}

// errUsage is returned for a command line that is wrong; it has been explained.
var errUsage = errors.New("wrong usage")

// oci runs a command as container engines call it. It reports whether the arguments name one.
func oci(args []string, out, errs io.Writer) (status int, found bool) {
	c := &command{out: out, errs: errs}
	f := c.flags("", "")
	f.StringVar(&c.root, "root", defaultRoot, "directory of the containers' state, in memory")
	f.StringVar(&c.log, "log", "", "file for errors and warnings, beside standard error")
	f.StringVar(&c.format, "log-format", "text", "text or json")
	f.Bool("debug", false, "accepted: there is nothing more to say")
	systemd := f.Bool("systemd-cgroup", false, "refused: this runtime makes control groups itself")
	rootless := f.String("rootless", "auto", "auto or false; true is refused")
	if err := f.Parse(args); err != nil {
		return 2, !errors.Is(err, flag.ErrHelp)
	}
	v := verbs()[f.Arg(0)]
	if v == nil {
		if f.NArg() > 0 {
			fmt.Fprintf(errs, "skep-runtime: unknown command %q\n", f.Arg(0))
		}
		return 0, false
	}
	err := error(nil)
	switch {
	case *systemd:
		err = errors.New("--systemd-cgroup: this runtime makes control groups itself; set the engine's cgroup manager to cgroupfs")
	case *rootless != "auto" && *rootless != "false":
		err = fmt.Errorf("--rootless %s: this runtime needs root; use runc or crun for rootless containers", *rootless)
	case c.format != "text" && c.format != "json":
		err = fmt.Errorf("--log-format %q is neither text nor json", c.format)
	}
	if err == nil {
		c.runtime, err = bundle.New(c.root, slog.New(slog.NewTextHandler(errs, nil)))
	}
	if err == nil {
		status, err = v(c, context.Background(), f.Args()[1:])
	}
	switch {
	case err == nil:
		return status, true
	case errors.Is(err, errUsage):
		return 2, true
	}
	c.report(err)
	return 1, true
}

// report tells an error to whoever looks: a person, and the engine that reads the log.
func (c *command) report(err error) {
	fmt.Fprintln(c.errs, "skep-runtime:", err)
	if c.log == "" {
		return
	}
	f, openErr := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if openErr != nil {
		fmt.Fprintln(c.errs, "skep-runtime: log:", openErr)
		return
	}
	defer f.Close()
	entry := struct {
		Level string    `json:"level"`
		Msg   string    `json:"msg"`
		Time  time.Time `json:"time"`
	}{"error", err.Error(), time.Now().UTC()}
	line, _ := json.Marshal(entry) // strings and a time can always be written
	if c.format == "text" {
		line = fmt.Appendf(nil, "time=%q level=error msg=%q", entry.Time.Format(time.RFC3339), entry.Msg)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(c.errs, "skep-runtime: log:", err)
	}
}

func (c *command) flags(name, arguments string) *flag.FlagSet {
	f := flag.NewFlagSet("skep-runtime "+name, flag.ContinueOnError)
	f.SetOutput(c.errs)
	f.Usage = func() {
		fmt.Fprintf(c.errs, "usage: skep-runtime [global flags] %s [flags] %s\n", name, arguments)
		f.PrintDefaults()
	}
	return f
}

// parse reads the flags of a command that takes between least and most arguments.
func (c *command) parse(f *flag.FlagSet, args []string, least, most int) error {
	if err := f.Parse(args); err != nil {
		return errUsage
	}
	if f.NArg() < least || f.NArg() > most {
		f.Usage()
		return errUsage
	}
	return nil
}

// creation are the flags of create and run.
type creation struct {
	bundle, pidFile, console string
	noPivot                  bool
	preserve                 int
}

func (o *creation) add(f *flag.FlagSet) {
	for _, name := range []string{"bundle", "b"} {
		f.StringVar(&o.bundle, name, ".", "directory with config.json")
	}
	f.StringVar(&o.pidFile, "pid-file", "", "file to write the process's number to")
	f.StringVar(&o.console, "console-socket", "", "unix socket that takes the container's terminal")
	f.BoolVar(&o.noPivot, "no-pivot", false, "refused: the container's root would not be a root")
	f.IntVar(&o.preserve, "preserve-fds", 0, "how many descriptors, from 3 on, the program gets")
}

// maxPreserve bounds the descriptors that a program gets.
const maxPreserve = 256

// job turns the flags into a container to create.
func (o *creation) job(id string) (bundle.Create, error) {
	job := bundle.Create{ID: id, Bundle: o.bundle, PidFile: o.pidFile, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if o.noPivot {
		return job, errors.New("--no-pivot: without pivot_root the container could leave its root; put the root file system on another mount than the initial ramdisk")
	}
	if o.preserve < 0 || o.preserve > maxPreserve {
		return job, fmt.Errorf("--preserve-fds %d: not in 0 to %d", o.preserve, maxPreserve)
	}
	for fd := 3; fd < 3+o.preserve; fd++ {
		job.Preserve = append(job.Preserve, os.NewFile(uintptr(fd), "preserved "+strconv.Itoa(fd)))
	}
	if o.console != "" {
		job.Console = func(t *os.File) error {
			defer t.Close()
			return console.Send(o.console, t)
		}
	}
	return job, nil
}

func (c *command) create(ctx context.Context, args []string) (int, error) {
	var o creation
	f := c.flags("create", "ID")
	o.add(f)
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	if err := sealed.Exec("skep-runtime"); err != nil { // comes back here, from memory
		return 0, err
	}
	job, err := o.job(f.Arg(0))
	if err != nil {
		return 0, err
	}
	p, err := c.runtime.Create(ctx, job)
	if err != nil {
		return 0, err
	}
	p.Close()
	return 0, nil
}

func (c *command) start(ctx context.Context, args []string) (int, error) {
	f := c.flags("start", "ID")
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	return 0, c.runtime.Start(ctx, f.Arg(0))
}

func (c *command) state(_ context.Context, args []string) (int, error) {
	f := c.flags("state", "ID")
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	state, err := c.runtime.State(f.Arg(0))
	if err != nil {
		return 0, err
	}
	return 0, c.print(state)
}

func (c *command) print(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (c *command) kill(_ context.Context, args []string) (int, error) {
	f := c.flags("kill", "ID [SIGNAL]")
	all := false
	for _, name := range []string{"all", "a"} {
		f.BoolVar(&all, name, false, "signal every process of the container")
	}
	if err := c.parse(f, args, 1, 2); err != nil {
		return 0, err
	}
	signal := "SIGTERM"
	if f.NArg() > 1 {
		signal = f.Arg(1)
	}
	s, err := parseSignal(signal)
	if err != nil {
		return 0, err
	}
	return 0, c.runtime.Kill(f.Arg(0), s, all)
}

func (c *command) pause(ctx context.Context, args []string) (int, error) {
	f := c.flags("pause", "ID")
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	return 0, c.runtime.Pause(ctx, f.Arg(0))
}

func (c *command) resume(_ context.Context, args []string) (int, error) {
	f := c.flags("resume", "ID")
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	return 0, c.runtime.Resume(f.Arg(0))
}

func (c *command) delete(ctx context.Context, args []string) (int, error) {
	f := c.flags("delete", "ID")
	force := false
	for _, name := range []string{"force", "f"} {
		f.BoolVar(&force, name, false, "kill the container if it runs; one that isn't there is no error")
	}
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	return 0, c.runtime.Delete(ctx, f.Arg(0), force)
}
