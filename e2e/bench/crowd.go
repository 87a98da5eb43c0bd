package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/e2e/lab"
)

const (
	// joiners is how many simulated nodes join at once.
	joiners = 8
	// connections is how many of them begin a session at once. Real ones have processors of their own: thousands that share one process with the
	// managers' would all take longer than they wait, give up, and begin anew, for ever.
	connections = 16
	// inMemory is where the simulated nodes keep what they saw: real ones have disks of their own, and thousands on one would keep the managers
	// waiting for it.
	inMemory = "/dev/shm"
)

// crowdSize is how many nodes are simulated, and how many replicas there are for each of them.
type crowdSize struct{ nodes, tasks int }

// crowdSizes are simulated one after the other, so that growth is seen: with the nodes, with the tasks of each, and with the nodes alone.
func crowdSizes() []crowdSize { return []crowdSize{{100, 30}, {1000, 30}, {1000, 100}, {5000, 6}} }

// simulated measures three managers with many nodes: real certificates, sessions and assignments, and containers that only say that they run.
func (b bench) simulated(ctx context.Context) (err error) {
	managers, err := b.started(ctx, "m7", "m8", "m9")
	if err != nil {
		return err
	}
	if err := b.network.Swarm(ctx, "m7", "m8", "m9"); err != nil {
		return err
	}
	line, err := managers[0].Skep(ctx, "swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	secret, err := token.Parse(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(inMemory, "skep-bench-")
	if err != nil {
		return err
	}
	c := &crowdOf{bench: b, dir: dir, managers: managers, token: secret, connecting: make(chan struct{}, connections), started: make(chan struct{}, 1)}
	defer func() {
		c.close()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, size := range crowdSizes() {
		if err := c.grow(ctx, size.nodes); err != nil {
			return err
		}
		if err := c.measure(ctx, size.nodes*size.tasks); err != nil {
			return err
		}
	}
	return nil
}

// crowdOf are simulated nodes.
type crowdOf struct {
	bench
	dir      string // what the nodes keep
	managers []*lab.Machine
	token    token.Token
	agents   []*simulatedAgent
	// connecting has room for those that begin a session.
	connecting chan struct{}
	// running is how many tasks run now; started has room for one signal that it changed.
	running atomic.Int64
	started chan struct{}
}

// simulatedAgent is one of them.
type simulatedAgent struct {
	crowd   *crowdOf
	id      string
	client  *session.Client
	stop    context.CancelFunc
	stopped sync.WaitGroup

	mu         sync.Mutex
	tasks      map[string]bool // that run
	connecting bool            // it has room to begin a session
}

func (c *crowdOf) close() {
	for _, a := range c.agents {
		a.stop()
	}
	for _, a := range c.agents {
		a.stopped.Wait()
	}
}

// grow has as many nodes join as make them that many.
func (c *crowdOf) grow(ctx context.Context, size int) error {
	began, before := time.Now(), len(c.agents)
	if size == before {
		return nil
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(joiners)
	for i := before; i < size; i++ {
		group.Go(func() error {
			a, err := c.join(ctx, i)
			if err != nil {
				return fmt.Errorf("simulated node %d: %w", i, err)
			}
			mu.Lock()
			defer mu.Unlock()
			c.agents = append(c.agents, a)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.ready(context.WithoutCancel(ctx), c.managers[0], size+len(c.managers)); err != nil {
		return err
	}
	c.row(fmt.Sprintf("%d nodes join, %d at once", size-before, joiners), fmt.Sprintf("%.0f/s", float64(size-before)/time.Since(began).Seconds()), "")
	return nil
}

func (c *crowdOf) join(ctx context.Context, number int) (*simulatedAgent, error) {
	from := c.managers[number%len(c.managers)] // whose network it uses
	dial := func(ctx context.Context, address string) (net.Conn, error) { return from.Dial(ctx, "tcp", address) }
	address := fmt.Sprintf("%s:%d", from.Address, lab.Port)
	hostname := fmt.Sprintf("sim%d", number)
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	var credentials ca.Credentials
	err = until(ctx, func() (joined bool, err error) { // a manager may still be catching up
		credentials, err = ca.Join(ctx, ca.JoinConfig{Address: address, Token: c.token, Hostname: hostname, Key: key, Dial: dial})
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	identity := ca.NewIdentity(credentials)
	dir := filepath.Join(c.dir, hostname)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &simulatedAgent{crowd: c, id: identity.NodeID(), tasks: map[string]bool{}}
	a.client, err = session.New(session.Config{
		Dir: dir, Managers: []string{address}, Handler: a, TLS: identity.TLS,
		Dial: func(address string) (*grpc.ClientConn, error) {
			a.begins()
			return grpc.NewClient("passthrough:///"+address, grpc.WithContextDialer(dial), grpc.WithNoProxy(),
				grpc.WithTransportCredentials(identity.ClientCredentials(ca.OUManager)))
		},
		Describe: func() *api.NodeDescription {
			return &api.NodeDescription{
				Hostname: hostname, Platform: &api.Platform{Os: runtime.GOOS, Architecture: runtime.GOARCH},
				Resources: &api.Resources{NanoCpus: 64e9, MemoryBytes: 256 << 30},
			}
		},
	})
	if err != nil {
		return nil, err
	}
	a.run(ctx)
	return a, nil
}

// run begins to keep a session.
func (a *simulatedAgent) run(ctx context.Context) {
	var running context.Context
	running, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	a.stopped.Go(func() {
		_ = a.client.Run(running) // it returns nil
		a.begun()
	})
}

// begins waits until the agent may begin a session.
func (a *simulatedAgent) begins() {
	a.crowd.connecting <- struct{}{}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connecting = true
}

// begun lets another agent begin one, if this one did.
func (a *simulatedAgent) begun() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.connecting {
		a.connecting = false
		<-a.crowd.connecting
	}
}

// Registered implements session.Handler.
func (a *simulatedAgent) Registered(*api.SessionResponse) { a.begun() }

// Disconnected implements session.Handler.
func (a *simulatedAgent) Disconnected(error) { a.begun() }

// Assign implements session.Handler: tasks run and end at once.
func (a *simulatedAgent) Assign(_ context.Context, complete bool, changes []*api.AssignmentChange) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if complete {
		a.forget(changes)
	}
	for _, change := range changes {
		task := change.GetTask()
		runs := task.GetDesiredState() == api.TaskState_TASK_STATE_RUNNING && change.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE
		switch {
		case task == nil || a.tasks[task.GetId()] == runs:
			continue
		case runs:
			a.tasks[task.GetId()] = true
			a.crowd.running.Add(1)
			a.client.Report(task.GetId(), &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING})
		default:
			delete(a.tasks, task.GetId())
			a.crowd.running.Add(-1)
			a.client.Report(task.GetId(), &api.TaskStatus{State: api.TaskState_TASK_STATE_SHUTDOWN})
		}
	}
	select {
	case a.crowd.started <- struct{}{}:
	default:
	}
	return nil
}

// forget ends the tasks that are not among all that the node is assigned.
func (a *simulatedAgent) forget(all []*api.AssignmentChange) {
	assigned := map[string]bool{}
	for _, change := range all {
		assigned[change.GetTask().GetId()] = true
	}
	maps.DeleteFunc(a.tasks, func(id string, _ bool) bool {
		if !assigned[id] {
			a.crowd.running.Add(-1)
		}
		return !assigned[id]
	})
}

// awaitRunning returns when that many tasks run on the simulated nodes.
func (c *crowdOf) awaitRunning(ctx context.Context, tasks int64) error {
	for c.running.Load() != tasks {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d simulated tasks run: %w", c.running.Load(), tasks, context.Cause(ctx))
		case <-c.started:
		}
	}
	return nil
}

// measure creates a service of that many tasks, has a node go silent, and removes the service.
func (c *crowdOf) measure(ctx context.Context, tasks int) error {
	return withControl(c.managers[0], func(control api.ControlClient) error {
		wanted := spec(fmt.Sprintf("simulated%d-%d", len(c.agents), tasks), uint64(tasks))
		began := time.Now()
		response, err := control.CreateService(ctx, &api.CreateServiceRequest{Spec: wanted})
		if err != nil {
			return err
		}
		if err := c.awaitRunning(ctx, int64(tasks)); err != nil {
			return err
		}
		c.row(fmt.Sprintf("%d replicas on %d simulated nodes: create to running", tasks, len(c.agents)), milliseconds(time.Since(began)), "< 30000 ms for 30000")
		leader, err := c.network.Leader(ctx, c.managers[0])
		if err != nil {
			return err
		}
		kib, err := pss(leader.DaemonPID())
		if err != nil {
			return err
		}
		c.row(fmt.Sprintf("leader with %d tasks on %d nodes: PSS of the daemon", tasks, len(c.agents)), fmt.Sprintf("%.1f MB", float64(kib)/1024), "< 1000 MB for 100000")
		if err := c.lose(ctx, control, int64(tasks)); err != nil {
			return err
		}
		began = time.Now()
		if _, err := control.RemoveService(ctx, &api.RemoveServiceRequest{Service: response.GetService().GetId()}); err != nil {
			return err
		}
		if err := c.awaitRunning(ctx, 0); err != nil {
			return err
		}
		c.row(fmt.Sprintf("%d replicas on %d simulated nodes removed: to the last task's end", tasks, len(c.agents)), milliseconds(time.Since(began)), "")
		return nil
	})
}

// lose has a node go silent, and measures how long its tasks take to run elsewhere once it is down. Then it comes back.
func (c *crowdOf) lose(ctx context.Context, control api.ControlClient, tasks int64) error {
	lost := c.agents[0]
	lost.stop()
	lost.stopped.Wait()
	lost.mu.Lock()
	had := len(lost.tasks)
	c.running.Add(-int64(had))
	lost.tasks = map[string]bool{}
	lost.mu.Unlock()
	state := func(wanted api.NodeState) func() (bool, error) {
		return func() (bool, error) {
			node, err := control.GetNode(ctx, &api.GetNodeRequest{Node: lost.id})
			return node.GetNode().GetStatus().GetState() == wanted, err
		}
	}
	if err := until(ctx, state(api.NodeState_NODE_STATE_DOWN)); err != nil {
		return err
	}
	began := time.Now()
	if err := c.awaitRunning(ctx, tasks); err != nil {
		return err
	}
	c.row(fmt.Sprintf("one of %d nodes down: its %d tasks run elsewhere", len(c.agents), had), milliseconds(time.Since(began)), "< 1000 ms")
	lost.run(ctx)
	return until(ctx, state(api.NodeState_NODE_STATE_READY))
}
