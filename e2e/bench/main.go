// Command bench measures, on this machine and with the built programs, what a user waits for: init, join, create, scale,
// failover, the launch of a container, and the memory of an idle node. Beside each figure stands the mark that the project wants to hold.
//
// Machines are shared and noisy: compare figures of one run with each other, not with another day's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/e2e/lab"
)

// patience bounds each measurement.
const patience = 30 * time.Minute

// commands is how many commands are run to measure one.
const commands = 30

func main() {
	lab.Main()
	bin := flag.String("bin", "bin", "`directory` of the built programs")
	creates := flag.Int("n", 30, "services created to measure create to running")
	only := flag.String("only", "", "measure this alone: cluster, dense, launch, placement, simulated")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop() // only now: who terminates it may say so twice, as timeout(1) does
	if err := run(ctx, os.Stdout, *bin, *creates, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, bin string, creates int, only string) (err error) {
	if missing := lab.Missing(); missing != "" {
		return fmt.Errorf("this needs %s: run it as root", missing)
	}
	programs, err := lab.ProgramsIn(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skep-bench-")
	if err != nil {
		return err
	}
	network, err := lab.NewNetwork(dir, programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close(), os.RemoveAll(dir)) }()
	b := bench{out: out, bin: bin, network: network, creates: creates}
	b.row("WHAT", "MEASURED", "MARK")
	for _, group := range []struct {
		name     string
		measures []func(context.Context) error
	}{
		{"launch", []func(context.Context) error{b.launch}},
		{"simulated", []func(context.Context) error{b.simulated}},
		{"dense", []func(context.Context) error{b.dense}},
		{"placement", []func(context.Context) error{b.placement}},
		{"cluster", []func(context.Context) error{b.form, b.memory, b.command, b.create, b.scale, b.failover, b.gone, b.restart}},
	} {
		if only != "" && only != group.name {
			continue
		}
		for _, measure := range group.measures {
			bounded, cancel := context.WithTimeout(ctx, patience)
			err := measure(bounded)
			cancel()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// bench is a run under way.
type bench struct {
	out     io.Writer
	bin     string
	network *lab.Network
	creates int
}

// row writes a line of the table as soon as it is known: a whole run takes half an hour.
func (b bench) row(what, measured, mark string) {
	fmt.Fprintf(b.out, "%-72s  %-40s  %s\n", what, measured, mark)
}

// medianAndWorst writes the two rows of what was measured several times, each with its mark.
func (b bench) medianAndWorst(what string, took []time.Duration, medianMark, worstMark string) {
	b.row(fmt.Sprintf("%s, p50 of %d", what, len(took)), milliseconds(median(took)), medianMark)
	b.row(fmt.Sprintf("%s, worst of %d", what, len(took)), milliseconds(slices.Max(took)), worstMark)
}

// started adds machines and starts their daemons.
func (b bench) started(ctx context.Context, names ...string) ([]*lab.Machine, error) {
	var machines []*lab.Machine
	for _, name := range names {
		m, err := b.network.NewMachine(name)
		if err != nil {
			return nil, err
		}
		if err := m.Start(ctx); err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}

// form measures init and join, on three managers and two workers.
func (b bench) form(ctx context.Context) error {
	machines, err := b.started(ctx, "m1", "m2", "m3", "w1", "w2")
	if err != nil {
		return err
	}
	m1 := machines[0]
	began := time.Now()
	if err := b.network.Swarm(ctx, "m1"); err != nil {
		return err
	}
	if err := b.ready(ctx, m1, 1); err != nil {
		return err
	}
	b.row("init to ready", milliseconds(time.Since(began)), "< 1000 ms")
	var joins []time.Duration
	for i, name := range []string{"m2", "m3", "w1", "w2"} {
		role := "worker"
		if strings.HasPrefix(name, "m") {
			role = "manager"
		}
		token, err := m1.Skep(ctx, "swarm", "join-token", "-q", role)
		if err != nil {
			return err
		}
		began := time.Now()
		address := fmt.Sprintf("%s:%d", m1.Address, lab.Port)
		if _, err := b.network.Machine(name).Skep(ctx, "swarm", "join", "--token", strings.TrimSpace(token), address); err != nil {
			return err
		}
		if err := b.ready(ctx, m1, i+2); err != nil {
			return err
		}
		joins = append(joins, time.Since(began))
	}
	b.row("join to ready, slowest of 4", milliseconds(slices.Max(joins)), "< 1000 ms")
	return nil
}

// ready returns when that many nodes are ready.
func (b bench) ready(ctx context.Context, m *lab.Machine, nodes int) error {
	return withControl(m, func(control api.ControlClient) error {
		return until(ctx, func() (bool, error) {
			response, err := control.ListNodes(ctx, &api.ListNodesRequest{})
			if err != nil {
				return false, err
			}
			n := 0
			for _, node := range response.GetNodes() {
				if node.GetStatus().GetState() == api.NodeState_NODE_STATE_READY {
					n++
				}
			}
			return n == nodes, nil
		})
	})
}

// until asks again and again, often enough not to blur what it measures.
func until(ctx context.Context, done func() (bool, error)) error {
	return untilEvery(ctx, 2*time.Millisecond, done)
}

// untilEvery asks less often what takes long to answer.
func untilEvery(ctx context.Context, period time.Duration, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(period):
		}
	}
}

func withControl(m *lab.Machine, fn func(api.ControlClient) error) error {
	conn, err := grpc.NewClient("unix://"+m.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(api.NewControlClient(conn))
}

func spec(name string, replicas uint64) *api.ServiceSpec {
	return &api.ServiceSpec{
		Annotations: &api.Annotations{Name: name},
		Task: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "skep.local/hello", Args: []string{"--listen", "off"}},
			Placement: &api.Placement{Constraints: []string{"node.role==worker"}},
		},
		Replicated: &api.ReplicatedService{Replicas: replicas},
	}
}

// converge returns when that many tasks of the service run.
func converge(ctx context.Context, control api.ControlClient, id string, running int) error {
	return elsewhere(ctx, control, id, "", running)
}

// watch returns when the tasks of a service are as wanted.
func watch(ctx context.Context, control api.ControlClient, id string, wanted func([]*api.Task) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := control.WatchService(ctx, &api.WatchServiceRequest{ServiceId: id})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if wanted(response.GetTasks()) {
			return nil
		}
	}
}

// create measures how long a service of one task takes to run.
func (b bench) create(ctx context.Context) error {
	return withControl(b.network.Machine("m1"), func(control api.ControlClient) error {
		var took []time.Duration
		for i := range b.creates {
			began := time.Now()
			response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec(fmt.Sprintf("one%d", i), 1)})
			if err != nil {
				return err
			}
			if err := converge(ctx, control, response.GetService().GetId(), 1); err != nil {
				return err
			}
			took = append(took, time.Since(began))
			if _, err := control.RemoveService(ctx, &api.RemoveServiceRequest{Service: response.GetService().GetId()}); err != nil {
				return err
			}
		}
		slices.Sort(took)
		b.row(fmt.Sprintf("create to running, p50 of %d", len(took)), milliseconds(took[len(took)/2]), "<= 50 ms")
		b.row(fmt.Sprintf("create to running, p99 of %d", len(took)), milliseconds(took[len(took)*99/100]), "")
		return nil
	})
}

// scale measures 1 to 100 replicas on two workers.
func (b bench) scale(ctx context.Context) error {
	const replicas = 100
	return withControl(b.network.Machine("m1"), func(control api.ControlClient) error {
		id, took, err := grown(ctx, control, spec("many", 1), replicas)
		if err != nil {
			return err
		}
		b.row("1 to 100 replicas", milliseconds(took), "< 10000 ms")
		_, err = control.RemoveService(ctx, &api.RemoveServiceRequest{Service: id})
		return err
	})
}

// grown creates a service of one task, and measures how long it takes to have as many.
func grown(ctx context.Context, control api.ControlClient, wanted *api.ServiceSpec, replicas uint64) (id string, took time.Duration, err error) {
	response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: wanted})
	if err != nil {
		return "", 0, err
	}
	id = response.GetService().GetId()
	if err := converge(ctx, control, id, 1); err != nil {
		return "", 0, err
	}
	began := time.Now()
	current, err := control.GetService(ctx, &api.GetServiceRequest{Service: id})
	if err != nil {
		return "", 0, err
	}
	wanted = current.GetService().GetSpec()
	wanted.Replicated.Replicas = replicas
	update := &api.UpdateServiceRequest{ServiceId: id, Version: current.GetService().GetMeta().GetVersion(), Spec: wanted}
	if _, err := control.UpdateService(ctx, update); err != nil {
		return "", 0, err
	}
	err = converge(ctx, control, id, int(replicas))
	return id, time.Since(began), err
}

// command measures what somebody waits for who asks a manager something: the start of skep, one call, a table.
func (b bench) command(ctx context.Context) error {
	took := make([]time.Duration, commands)
	for i := range took {
		began := time.Now()
		if _, err := b.network.Machine("m1").Skep(ctx, "node", "ls"); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	b.row(fmt.Sprintf("skep node ls, p50 of %d", commands), milliseconds(median(took)), "")
	return nil
}

// memory measures the proportional set size of all processes of an idle node.
func (b bench) memory(context.Context) error {
	for _, node := range []struct{ name, what, mark string }{{"m1", "manager", "< 80 MB"}, {"w1", "worker", "< 50 MB"}} {
		total := 0
		for pid, command := range b.network.Machine(node.name).Processes() {
			// The machine's init process is the bench's own.
			if pid == b.network.Machine(node.name).PID() {
				continue
			}
			kb, err := pss(pid)
			if err != nil {
				return fmt.Errorf("memory of %s: %w", command, err)
			}
			total += kb
		}
		b.row("idle "+node.what+", PSS of all processes", fmt.Sprintf("%.1f MB", float64(total)/1024), node.mark)
	}
	return nil
}

// pss returns the proportional set size of a process in KiB; see proc_pid_smaps(5).
func pss(pid int) (int, error) { return memoryOf(pid, "smaps_rollup", "Pss") }

// memoryOf gives a field of one of a process's files, in KiB.
func memoryOf(pid int, file, field string) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if _, err := fmt.Sscanf(line, field+": %d kB", &kb); err == nil {
			return kb, nil
		}
	}
	return 0, fmt.Errorf("no %s in %s of %d", field, file, pid)
}
