package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
)

// denseReplicas is how many tasks of a service run on one node.
const denseReplicas = 200

// dense measures 1 to 200 replicas of a sleeping task on one node, and the same with Docker's swarm mode where dockerd is
// installed, in a machine of its own, one after the other.
func (b bench) dense(ctx context.Context) error {
	ours, err := b.denseSkep(ctx)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("1 to %d replicas on one node", denseReplicas), milliseconds(ours), "")
	if _, err := exec.LookPath("dockerd"); err != nil {
		b.row("the same, Docker", "not measured: "+err.Error(), ">= 10 x ours")
		return nil
	}
	d, err := b.newDocker(ctx)
	if err != nil {
		return err
	}
	theirs, helper, err := d.scale(ctx)
	if err := errors.Join(err, d.machine.PowerOff()); err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	b.row("the same, Docker", fmt.Sprintf("%s = %.1f x ours", milliseconds(theirs), float64(theirs)/float64(ours)), ">= 10 x ours")
	b.row("Docker's helper for each container", fmt.Sprintf("%d KB PSS", helper), ">= 100 x the supervisor's share")
	return nil
}

// denseSkep gives how long 1 to 200 replicas take, and measures what they cost while they sleep, and how long their removal takes.
func (b bench) denseSkep(ctx context.Context) (time.Duration, error) {
	m, err := b.network.NewMachine("dense")
	if err != nil {
		return 0, err
	}
	defer m.PowerOff()
	if err := m.Start(ctx); err != nil {
		return 0, err
	}
	if _, err := m.Skep(ctx, "swarm", "init", "--advertise-addr", m.Address.String()); err != nil {
		return 0, err
	}
	var took time.Duration
	err = withControl(m, func(control api.ControlClient) error {
		wanted := spec("dense", 1)
		wanted.Task.Placement = nil
		wanted.Task.Container.Args = append(wanted.Task.Container.Args, "--every", "0")
		before, err := costOf(m)
		if err != nil {
			return err
		}
		var id string
		if id, took, err = grown(ctx, control, wanted, denseReplicas); err != nil {
			return err
		}
		if err := b.asleep(ctx, m, before); err != nil {
			return err
		}
		began := time.Now()
		if _, err := control.RemoveService(ctx, &api.RemoveServiceRequest{Service: id}); err != nil {
			return err
		}
		err = untilEvery(ctx, 20*time.Millisecond, func() (bool, error) {
			left, err := control.ListTasks(ctx, &api.ListTasksRequest{})
			return err == nil && len(left.GetTasks()) == 0, err
		})
		b.row(fmt.Sprintf("the %d removed: to the last task's end", denseReplicas), milliseconds(time.Since(began)), "< 1000 ms")
		return err
	})
	return took, err
}

// asleep measures what the node's own processes need with many tasks that sleep, beyond what they needed with none.
func (b bench) asleep(ctx context.Context, m *lab.Machine, before cost) error {
	pause := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
			return nil
		}
	}
	const calm, watched = 5 * time.Second, 20 * time.Second
	if err := pause(calm); err != nil {
		return err
	}
	from, err := costOf(m)
	if err != nil {
		return err
	}
	if err := pause(watched); err != nil {
		return err
	}
	to, err := costOf(m)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("processor, %d tasks that sleep", denseReplicas), fmt.Sprintf("%.2f %% of a core", 100*(to.seconds-from.seconds)/watched.Seconds()), "< 1 %")
	b.row("memory for each of them, PSS of all processes but theirs", fmt.Sprintf("%.3f MB", float64(to.bytes-before.bytes)/denseReplicas/(1<<20)), "<= 0.2 MB")
	return nil
}

// cost is what a machine's processes took, but for those of its containers: seconds of a processor since they began, and bytes of memory now.
type cost struct {
	seconds float64
	bytes   int64
}

func costOf(m *lab.Machine) (c cost, err error) {
	for pid, command := range m.Processes() {
		if pid == m.PID() || command == "skep-hello" { // the bench's own, and the containers'
			continue
		}
		process, err := procfs.NewProc(pid)
		if err != nil {
			return cost{}, err
		}
		stat, err := process.Stat()
		if err != nil {
			return cost{}, err
		}
		memory, err := process.ProcSMapsRollup()
		if err != nil {
			return cost{}, err
		}
		c.seconds += stat.CPUTime()
		c.bytes += int64(memory.Pss)
	}
	return c, nil
}

// docker is a dockerd in a machine, which has its processes, mounts and control groups: all of them end with it.
type docker struct {
	machine *lab.Machine
	dir     string
}

func (b bench) newDocker(ctx context.Context) (*docker, error) {
	m, err := b.network.NewMachine("docker")
	if err != nil {
		return nil, err
	}
	d := &docker{machine: m, dir: filepath.Join(m.Dir, "docker")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	err = m.Run("dockerd", "--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--host", d.host(), "--pidfile", filepath.Join(d.dir, "pid"), "--cgroup-parent", "/"+m.CgroupParent())
	if err != nil {
		return nil, err
	}
	err = until(ctx, func() (bool, error) { _, err := d.run(ctx, "version"); return err == nil, err })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dockerd does not answer: see %s: %w", m.LogFile(), err), m.PowerOff())
	}
	return d, nil
}

func (d *docker) host() string { return "unix://" + filepath.Join(d.dir, "s") }

func (d *docker) run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "docker", append([]string{"--host", d.host()}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// replicas returns when the service has that many.
func (d *docker) replicas(ctx context.Context, n int) error {
	return until(ctx, func() (bool, error) {
		out, err := d.run(ctx, "service", "ls", "--format", "{{.Replicas}}")
		return out == fmt.Sprintf("%d/%d", n, n), err
	})
}

// scale gives how long Docker takes, and the proportional set size of a container's helper in KiB.
func (d *docker) scale(ctx context.Context) (took time.Duration, helper int, err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return 0, 0, err
	}
	image := filepath.Join(d.dir, "image.tar")
	if out, err := exec.CommandContext(ctx, "tar", "-C", filepath.Dir(busybox), "-cf", image, "busybox").CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("make an image: %w: %s", err, out)
	}
	for _, args := range [][]string{
		{"import", image, "bench:1"},
		{"swarm", "init", "--advertise-addr", d.machine.Address.String()},
		{"service", "create", "--detach", "--no-resolve-image", "--name", "dense", "bench:1", "/busybox", "sleep", "100000"},
	} {
		if _, err := d.run(ctx, args...); err != nil {
			return 0, 0, err
		}
	}
	if err := d.replicas(ctx, 1); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if _, err := d.run(ctx, "service", "scale", "--detach", fmt.Sprintf("dense=%d", denseReplicas)); err != nil {
		return 0, 0, err
	}
	if err := d.replicas(ctx, denseReplicas); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	helper, err = d.helper()
	return took, helper, err
}

// helper gives the proportional set size of what Docker keeps for a container, in KiB. Nothing ties those processes to dockerd
// but the path of its socket among their arguments.
func (d *docker) helper() (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	total, count := 0, 0
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may have ended
		if !strings.Contains(string(line), "containerd-shim") || !strings.Contains(string(line), d.dir) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		kb, err := pss(pid)
		if err != nil {
			return 0, err
		}
		total, count = total+kb, count+1
	}
	return total / max(count, 1), err
}
