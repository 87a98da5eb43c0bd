package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/skep-io/skep/runtime/bundle"
	"github.com/skep-io/skep/runtime/spec"
)

// ps lists the processes of a container: their numbers, or what the host's ps says of them.
func (c *command) ps(ctx context.Context, args []string) (int, error) {
	f := c.flags("ps", "ID [options of ps]")
	format := ""
	for _, name := range []string{"format", "f"} {
		f.StringVar(&format, name, "table", "table or json")
	}
	if err := c.parse(f, args, 1, len(args)); err != nil {
		return 0, err
	}
	pids, err := c.runtime.Pids(f.Arg(0))
	if err != nil {
		return 0, err
	}
	switch format {
	case "json":
		return 0, c.print(pids)
	case "table":
		return 0, c.table(ctx, pids, f.Args()[1:])
	}
	return 0, fmt.Errorf("--format %q is neither table nor json", format)
}

func (c *command) table(ctx context.Context, pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	text, err := exec.CommandContext(ctx, "ps", options...).Output()
	if err != nil {
		return fmt.Errorf("ps %q: %w", options, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	column := -1
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if column < 0 {
			if column = slices.Index(fields, "PID"); column < 0 {
				return fmt.Errorf("ps %q shows no column PID", options)
			}
			fmt.Fprintln(c.out, lines.Text())
			continue
		}
		if column < len(fields) {
			if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
				fmt.Fprintln(c.out, lines.Text())
			}
		}
	}
	return lines.Err()
}

// features says what the runtime offers, as the specification has it.
func (c *command) features(_ context.Context, args []string) (int, error) {
	if err := c.parse(c.flags("features", ""), args, 0, 0); err != nil {
		return 0, err
	}
	yes, no := true, false
	return 0, c.print(features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  spec.MountOptions(),
		Linux: &features.Linux{
			Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"},
			Capabilities:    spec.CapabilityNames(),
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &no},
			Seccomp:         filters(),
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &no}},
			NetDevices:      &features.NetDevices{Enabled: &no},
		},
	})
}

// filters says what package seccomp compiles.
func filters() *features.Seccomp {
	yes := true
	f := &features.Seccomp{Enabled: &yes}
	for _, a := range []specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActLog,
		specs.ActTrace, specs.ActTrap,
	} {
		f.Actions = append(f.Actions, string(a))
	}
	for _, o := range []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual, specs.OpLessThan, specs.OpMaskedEqual,
		specs.OpNotEqual,
	} {
		f.Operators = append(f.Operators, string(o))
	}
	archs := []specs.Arch{specs.ArchX86, specs.ArchX86_64}
	if runtime.GOARCH == "arm64" {
		archs = []specs.Arch{specs.ArchARM, specs.ArchAARCH64}
	}
	for _, a := range archs {
		f.Archs = append(f.Archs, string(a))
	}
	return f
}

// spec writes a configuration to begin with: a shell in the directory rootfs, isolated as a task of Skep is but for the
// user namespace, for which the directory's owners would have to be changed.
func (c *command) spec(_ context.Context, args []string) (int, error) {
	f := c.flags("spec", "")
	dir := ""
	for _, name := range []string{"bundle", "b"} {
		f.StringVar(&dir, name, ".", "directory to write config.json to")
	}
	if err := c.parse(f, args, 0, 0); err != nil {
		return 0, err
	}
	s, err := spec.Default()
	if err != nil {
		return 0, err
	}
	s.Root.Path, s.Root.Readonly, s.Hostname = "rootfs", true, "skep"
	s.Process.Args, s.Process.Terminal = []string{"sh"}, true
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.UserNamespace
	})
	path := filepath.Join(dir, "config.json")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	to := command{out: out}
	return 0, errors.Join(to.print(s), out.Close())
}

// events prints what a container uses: once with --stats, else at intervals until it ends.
func (c *command) events(_ context.Context, args []string) (int, error) {
	f := c.flags("events", "ID")
	once := f.Bool("stats", false, "print once")
	interval := f.Duration("interval", 5*time.Second, "time between two events")
	if err := c.parse(f, args, 1, 1); err != nil {
		return 0, err
	}
	if *interval <= 0 {
		return 0, fmt.Errorf("--interval %v is not above 0", *interval)
	}
	first := true
	for {
		event, err := c.runtime.Stats(f.Arg(0))
		if !first && (errors.Is(err, bundle.ErrNotRunning) || errors.Is(err, bundle.ErrNotFound)) {
			return 0, nil
		}
		if err == nil {
			err = json.NewEncoder(c.out).Encode(event) // a line each, as runc does
		}
		if err != nil || *once {
			return 0, err
		}
		first = false
		time.Sleep(*interval)
	}
}
