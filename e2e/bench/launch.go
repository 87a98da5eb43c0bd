package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
	runtimespec "github.com/skep-io/skep/runtime/spec"
)

//go:embed floor/floor.c
var floorSource []byte

// Counts and times of the measurements of launches.
const (
	launches     = 100             // of the floor and of ours; runc gets a quarter, being slow
	crowd        = 4               // containers launched at once
	crowdTime    = 3 * time.Second // for as long as they are launched
	crowdMembers = 300             // containers that live at once for the supervisor's memory
)

// launcher is a container supervisor of its own, with what its containers and those of its rivals are made of.
type launcher struct {
	bench
	*client.Client
	dir    string
	layer  string // a directory with a static busybox
	parent string // the control group of all containers
	cmd    *exec.Cmd
	events <-chan client.Event
}

// launch measures the life of a container that does nothing, create to delete, through the socket of the supervisor, beside the
// same steps in C without anything around them and beside `runc run`. They take turns, so that what else the machine does slows all.
func (b bench) launch(ctx context.Context) (err error) {
	if err := runInMemory(); err != nil {
		return err
	}
	l, err := b.newLauncher(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	floor, err := l.startFloor()
	if err != nil {
		return err
	}
	defer floor.close()
	var bare, durable, ours, runc []time.Duration
	bundle, noRunc := l.runcBundle()
	for i := range launches + 1 {
		first := i == 0 // the first of each warms up
		for _, m := range []struct {
			to      *[]time.Duration
			measure func() (time.Duration, error)
		}{
			{&bare, func() (time.Duration, error) { return floor.launch("bare") }},
			{&ours, func() (time.Duration, error) {
				return timed(func() error { return l.live(ctx, l.Client, l.events, fmt.Sprint("c", i)) })
			}},
			{&durable, func() (time.Duration, error) { return floor.launch("durable") }},
			{&runc, func() (time.Duration, error) {
				if noRunc != nil || i%4 != 0 {
					return 0, nil
				}
				return timed(func() error { return runcRun(ctx, bundle, fmt.Sprintf("%s-%d", l.parent, i)) })
			}},
		} {
			took, err := m.measure()
			if err != nil {
				return err
			}
			if took > 0 && !first {
				*m.to = append(*m.to, took)
			}
		}
	}
	b.row("launch, floor: the same steps in C", spread(bare), "")
	b.row("launch, floor with one fdatasync", fmt.Sprintf("%s = %s floor", spread(durable), times(durable, bare)), "")
	b.row("launch: create, start, exit, delete", fmt.Sprintf("%s = %s floor, %s that with fdatasync", spread(ours),
		times(ours, bare), times(ours, durable)), "<= 2.5 x floor")
	if noRunc != nil {
		b.row("launch, runc run", "not measured: "+noRunc.Error(), "")
	} else {
		b.row("launch, runc run", fmt.Sprintf("%s = %s ours", spread(runc), times(runc, ours)), ">= 8 x ours")
	}
	for _, measure := range []func() error{
		func() error { return l.inside(ctx, floor) },
		func() error { return l.crowdFloor() },
		func() error { return l.crowd(ctx) },
		func() error { return l.memory(ctx) },
	} {
		if err := measure(); err != nil {
			return err
		}
	}
	return nil
}

// runInMemory gives the calling goroutine, and all programs that it starts, a /run in memory, as systems have that boot with systemd:
// ours and runc keep there what they know of a container.
func runInMemory() error {
	runtime.LockOSThread() // for good: other measurements do not mind
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

func timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// times says how much longer a took than b, by their medians and, in brackets, by the least of each, which other work on the
// machine changes less.
func times(a, b []time.Duration) string {
	return fmt.Sprintf("%.1f (%.1f) x", float64(median(a))/float64(median(b)), float64(slices.Min(a))/float64(slices.Min(b)))
}

func spread(d []time.Duration) string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("p50 %.1f ms, min %.1f ms", ms(median(d)), ms(slices.Min(d)))
}

// newLauncher starts a supervisor.
func (b bench) newLauncher(ctx context.Context) (_ *launcher, err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("this needs a static busybox: %w", err)
	}
	l := &launcher{bench: b, parent: fmt.Sprintf("skep-bench-%d", os.Getpid())}
	if l.dir, err = os.MkdirTemp("", "skep-bench-launch-"); err != nil {
		return nil, err
	}
	l.layer = filepath.Join(l.dir, "layer")
	for _, name := range []string{"proc", "dev", "sys", "etc"} {
		if err := os.MkdirAll(filepath.Join(l.layer, name), 0o755); err != nil {
			return nil, err
		}
	}
	// Containers reach what is below this as their own root.
	if err := errors.Join(os.Chmod(l.dir, 0o755), copyFile(busybox, filepath.Join(l.layer, "busybox"))); err != nil {
		return nil, err
	}
	socket := filepath.Join(l.dir, "s")
	l.cmd = exec.Command(filepath.Join(b.bin, "skep-runtime"), "supervise", "--root", filepath.Join(l.dir, "root"), "--socket", socket,
		"--cgroup-parent", l.parent, "--kill-on-exit")
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the supervisor says %q: %w", line, err)
	}
	if l.Client, err = client.Dial(ctx, socket); err != nil {
		return nil, err
	}
	l.events, err = l.Events(ctx)
	return l, err
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}

func (l *launcher) close() error {
	states, err := l.List(context.Background())
	for _, s := range states {
		err = errors.Join(err, l.KillAll(context.Background(), s.ID), until(context.Background(), func() (bool, error) {
			return l.Delete(context.Background(), s.ID) == nil, nil
		}))
	}
	err = errors.Join(err, l.Client.Close(), l.cmd.Process.Signal(syscall.SIGTERM), l.cmd.Wait(), os.RemoveAll(l.dir))
	groups, failed := l.groups() // that runc made where the supervisor has none
	for _, g := range groups {
		failed = errors.Join(failed, os.Remove(g))
	}
	return errors.Join(err, failed)
}

// request describes a container with everything that a service's has by default, and limits.
func (l *launcher) request(id string, args ...string) (client.Request, error) {
	s, err := runtimespec.Default()
	if err != nil {
		return client.Request{}, err
	}
	memory, quota, period := int64(256<<20), int64(100000), uint64(100000)
	s.Process.Args = append([]string{"/busybox"}, args...)
	s.Hostname = "bench"
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	return client.Request{
		ID: id, Spec: s, Rootfs: client.Rootfs{Lower: []string{l.layer}, ReadOnly: true},
		Log: client.LogConfig{Path: filepath.Join(l.dir, id+".log")},
	}, nil
}

// live is one container's life.
func (l *launcher) live(ctx context.Context, c *client.Client, events <-chan client.Event, id string) error {
	r, err := l.request(id, "true")
	if err != nil {
		return err
	}
	if _, err := c.Create(ctx, r); err != nil {
		return err
	}
	if err := c.Start(ctx, id); err != nil {
		return err
	}
	for e := range events {
		if e.Type != client.EventExited || e.State.ID != id {
			continue
		}
		if e.State.ExitCode != 0 {
			return fmt.Errorf("container %s: exit code %d: %s", id, e.State.ExitCode, e.State.Error)
		}
		return c.Delete(ctx, id)
	}
	return fmt.Errorf("the stream of events ended before container %s", id)
}

// groups are the directories of control groups, one for each hierarchy, in which the supervisor makes those of containers.
func (l *launcher) groups() ([]string, error) {
	found, err := filepath.Glob("/sys/fs/cgroup/*/" + l.parent)
	if unified := "/sys/fs/cgroup/" + l.parent; err == nil && exists(unified) {
		found = append(found, unified)
	}
	return found, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// floorProcess is the running floor program.
type floorProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (l *launcher) startFloor() (*floorProcess, error) {
	dir, err := os.MkdirTemp(l.dir, "floor-")
	if err != nil {
		return nil, err
	}
	source, program := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, floorSource, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("cc", "-O2", "-o", program, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the floor: %w\n%s", err, out)
	}
	groups, err := l.groups()
	if err != nil {
		return nil, err
	}
	f := &floorProcess{cmd: exec.Command(program, append([]string{l.layer, filepath.Join(dir, "journal")}, groups...)...)}
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f.out = bufio.NewReader(out)
	return f, f.cmd.Start()
}

// launch makes one container and gives how long it lived, from the first step to the last.
func (f *floorProcess) launch(kind string) (time.Duration, error) {
	if _, err := fmt.Fprintln(f.in, kind); err != nil {
		return 0, err
	}
	line, err := f.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the floor: %w", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Duration(ns), err
}

func (f *floorProcess) close() {
	f.in.Close()
	_ = f.cmd.Wait() // it has said what it had to say
}

// runcBundle writes the same container for runc.
func (l *launcher) runcBundle() (string, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return "", err
	}
	r, err := l.request("runc", "true")
	if err != nil {
		return "", err
	}
	r.Spec.Root = &specs.Root{Path: l.layer, Readonly: true}
	r.Spec.Linux.CgroupsPath = "/" + l.parent + "/runc"
	// The supervisor may not go above its own limit either, but says nothing.
	r.Spec.Process.Rlimits = nil
	text, err := json.Marshal(r.Spec)
	if err != nil {
		return "", err
	}
	bundle := filepath.Join(l.dir, "bundle")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600); err != nil {
		return "", err
	}
	return bundle, runcRun(context.Background(), bundle, l.parent+"-first")
}

func runcRun(ctx context.Context, bundle, id string) error {
	if out, err := exec.CommandContext(ctx, "runc", "run", "--bundle", bundle, id).CombinedOutput(); err != nil {
		return fmt.Errorf("runc run: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// crowd measures how many containers a second live when several are launched at once.
func (l *launcher) crowd(ctx context.Context) error {
	rate, err := atOnce(func(w int) (func(i int) error, error) {
		events, err := l.Events(ctx)
		return func(i int) error { return l.live(ctx, l.Client, events, fmt.Sprintf("p%d-%d", w, i)) }, err
	})
	if err != nil {
		return err
	}
	l.row(fmt.Sprintf("launches, %d at once", crowd), fmt.Sprintf("%.0f/s", rate), ">= 150/s on 2 cores")
	return nil
}

// atOnce has a crowd launch containers for crowdTime, each its own one after the other, and returns how many lived a second. worker makes
// what launches the containers of the one with a number.
func atOnce(worker func(w int) (launch func(i int) error, err error)) (rate float64, err error) {
	var lived atomic.Int64
	var all errgroup.Group
	began := time.Now()
	for w := range crowd {
		all.Go(func() error {
			launch, err := worker(w)
			for i := 0; err == nil && time.Since(began) < crowdTime; i++ {
				if err = launch(i); err == nil {
					lived.Add(1)
				}
			}
			return err
		})
	}
	err = all.Wait()
	return float64(lived.Load()) / time.Since(began).Seconds(), err
}
