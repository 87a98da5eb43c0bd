package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/bundle"
	"github.com/skep-io/skep/runtime/console"
	"github.com/skep-io/skep/runtime/sealed"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// execution are the flags of exec.
type execution struct {
	process, pidFile, console string
	detach, terminal          bool
	cwd, user                 string
	env, caps                 list
	groups                    list
	noNewPrivs                bool
}

func (o *execution) add(f *flag.FlagSet) {
	for _, name := range []string{"process", "p"} {
		f.StringVar(&o.process, name, "", "file with the process as the specification has it, instead of arguments")
	}
	f.StringVar(&o.pidFile, "pid-file", "", "file to write the process's number to")
	f.StringVar(&o.console, "console-socket", "", "unix socket that takes the process's terminal")
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&o.detach, name, false, "return when the program runs")
	}
	for _, name := range []string{"tty", "t"} {
		f.BoolVar(&o.terminal, name, false, "give the process a terminal")
	}
	f.StringVar(&o.cwd, "cwd", "", "working directory")
	for _, name := range []string{"user", "u"} {
		f.StringVar(&o.user, name, "", "UID[:GID]")
	}
	for _, name := range []string{"env", "e"} {
		f.Var(&o.env, name, "NAME=value, may be repeated")
	}
	for _, name := range []string{"cap", "c"} {
		f.Var(&o.caps, name, "further capability, may be repeated")
	}
	for _, name := range []string{"additional-gids", "g"} {
		f.Var(&o.groups, name, "further group, may be repeated")
	}
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "the process can't gain rights")
}

// maxProcess bounds a file that describes a process.
const maxProcess = 4 << 20

// read gives the process that the flags describe: from a file, or the container's own changed by them.
func (o *execution) read(own *specs.Process, args []string) (*specs.Process, error) {
	if o.process != "" {
		f, err := os.Open(o.process)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		p := &specs.Process{}
		if err := json.NewDecoder(io.LimitReader(f, maxProcess)).Decode(p); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.process, err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errors.New("exec needs a program, or --process")
	}
	own.Args, own.Env, own.Terminal = args, append(own.Env, o.env...), o.terminal
	own.NoNewPrivileges = own.NoNewPrivileges || o.noNewPrivs
	if o.cwd != "" {
		own.Cwd = o.cwd
	}
	if len(o.caps) > 0 {
		all := &specs.LinuxCapabilities{}
		if own.Capabilities != nil {
			all = own.Capabilities
		}
		all.Bounding = append(all.Bounding, o.caps...)
		all.Permitted, all.Effective = append(all.Permitted, o.caps...), append(all.Effective, o.caps...)
		own.Capabilities = all
	}
	return own, o.identity(&own.User)
}

// identity reads --user and --additional-gids.
func (o *execution) identity(u *specs.User) error {
	if o.user != "" {
		uid, gid, hasGroup := strings.Cut(o.user, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("--user %q: not UID[:GID]", o.user)
		}
		*u = specs.User{UID: uint32(n), Umask: u.Umask}
		if hasGroup {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return fmt.Errorf("--user %q: not UID[:GID]", o.user)
			}
			u.GID = uint32(n)
		}
	}
	for _, g := range o.groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return fmt.Errorf("--additional-gids %q: not a number", g)
		}
		u.AdditionalGids = append(u.AdditionalGids, uint32(n))
	}
	return nil
}

// exec runs a program in a container; its status is the program's, unless --detach is given.
func (c *command) exec(ctx context.Context, args []string) (int, error) {
	var o execution
	f := c.flags("exec", "ID [COMMAND...]")
	o.add(f)
	if err := c.parse(f, args, 1, len(args)); err != nil {
		return 0, err
	}
	if err := sealed.Exec("skep-runtime"); err != nil { // comes back here, from memory
		return 0, err
	}
	own, err := c.runtime.Process(f.Arg(0))
	if err != nil {
		return 0, err
	}
	process, err := o.read(own, f.Args()[1:])
	if err != nil {
		return 0, err
	}
	job := bundle.Exec{ID: f.Arg(0), Process: process, PidFile: o.pidFile, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	window := &terminal{}
	defer window.restore()
	switch {
	case o.console != "":
		job.Console = func(t *os.File) error {
			defer t.Close()
			return console.Send(o.console, t)
		}
	case !o.detach:
		job.Console = window.take
	}
	p, err := c.runtime.Exec(ctx, job)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if o.detach {
		return 0, nil
	}
	return await(p, window)
}
