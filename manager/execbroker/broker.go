package execbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
)

const (
	// maxSessions bounds the streams at once: each costs a connection.
	maxSessions = 512
	// maxCommand is how much of a command the audit log has, in bytes.
	maxCommand = 256
	// maxPath is PATH_MAX, without the NUL byte.
	maxPath = 4095
)

// Subject is what a call is about, for the audit log.
type Subject struct {
	TaskID, TaskName string
	// Summary says what is done, in a few words.
	Summary string
}

// Config is what a Broker needs; all fields are required.
type Config struct {
	Store *store.Store
	// Dial makes a connection to a node without waiting for it. The peer must prove to be the node.
	Dial reach.Dial
	// Began puts what a stream begins to do into the audit log, and Ended how that has ended. They are called with the stream's
	// context, by its handler.
	Began func(ctx context.Context, s Subject)
	Ended func(ctx context.Context, how string)
	// About puts into the audit log what a call does, that is no stream. It is called with the call's context.
	About func(ctx context.Context, s Subject)
}

// Broker serves Tasks.
type Broker struct {
	api.UnimplementedTasksServer
	cfg      Config
	sessions atomic.Int32
}

// New returns a Broker.
func New(cfg Config) (*Broker, error) {
	if cfg.Store == nil || cfg.Dial == nil || cfg.Began == nil || cfg.Ended == nil || cfg.About == nil {
		return nil, errors.New("execbroker: Store, Dial, Began, Ended and About are required")
	}
	return &Broker{cfg: cfg}, nil
}

// find finds a running task, in a state that no manager is ahead of.
func (b *Broker) find(ctx context.Context, key string) (p place, err error) {
	if err := b.cfg.Store.Barrier(ctx); err != nil {
		return place{}, fault.Wrap(fault.Unavailable, fmt.Errorf("read the cluster's state: %w", err))
	}
	err = b.cfg.Store.View(func(tx store.ReadTx) (err error) {
		p, err = find(tx, key)
		return err
	})
	return p, err
}

// connect connects to a task's node. The caller closes the connection.
func (b *Broker) connect(ctx context.Context, p place) (*grpc.ClientConn, error) {
	conn, err := reach.Connect(ctx, b.cfg.Dial, p.node)
	if err == nil {
		return conn, nil
	}
	return nil, fault.New(fault.Unavailable, "node %s of task %s can't be reached: %s", reach.Hostname(p.node), p.name(), reach.Why(err))
}

// mayEnter refuses callers whom the task's grants are not for (B4).
func mayEnter(ctx context.Context, p place) error {
	if grant := privilege.Closed(authz.FromContext(ctx).Kind, p.grants); grant != "" {
		return fault.New(fault.PermissionDenied, "task %s has grant %s, which is for administrators: who runs commands in it has what the grant gives; "+
			"one of them has to do it, or to grant the same with `skep grant create --operators`", p.name(), grant)
	}
	return nil
}

type people = grpc.BidiStreamingServer[api.ConnectTaskRequest, api.ConnectTaskResponse]

// ConnectTask implements api.TasksServer.
func (b *Broker) ConnectTask(stream people) error {
	if b.sessions.Add(1) > maxSessions {
		b.sessions.Add(-1)
		return fault.New(fault.Exhausted, "this manager has %d sessions with tasks already: end some, or ask another manager", maxSessions)
	}
	defer b.sessions.Add(-1)
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	summary, err := summaryOf(first)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel() // B3
	place, err := b.find(ctx, first.GetTask())
	if err != nil {
		return err
	}
	if err := mayEnter(ctx, place); err != nil {
		return err
	}
	conn, err := b.connect(ctx, place)
	if err != nil {
		return err
	}
	defer conn.Close()
	b.cfg.Began(stream.Context(), Subject{TaskID: place.task.GetId(), TaskName: place.name(), Summary: summary})
	node, err := api.NewNodeTasksClient(conn).ConnectNodeTask(ctx)
	if err != nil {
		return fault.FromStatus(err)
	}
	first.Task = place.task.GetId()
	go func() { // ends with the stream, which ends when this returns
		relay(first, stream, node)
	}()
	for {
		r, err := node.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fault.FromStatus(err)
		case r.GetOutput() == nil:
			continue
		}
		if last := r.GetOutput().GetDisconnected(); last != nil {
			how := "done"
			if first.GetExec() != nil || first.GetAttach() != nil {
				how = fmt.Sprintf("exit code %d", last.GetExitCode())
			}
			b.cfg.Ended(stream.Context(), how)
		}
		if err := stream.Send(r.GetOutput()); err != nil {
			return err
		}
	}
}

// relay passes on what a person sends. What fails shows on the other way.
func relay(first *api.ConnectTaskRequest, from people, to grpc.BidiStreamingClient[api.ConnectNodeTaskRequest, api.ConnectNodeTaskResponse]) {
	for r := first; ; {
		if to.Send(&api.ConnectNodeTaskRequest{Input: r}) != nil {
			return
		}
		var err error
		if r, err = from.Recv(); err != nil {
			_ = to.CloseSend() // the node sees the end, or that of the connection
			return
		}
	}
}

// summaryOf says what a person wants to do, without what the environment, the input and the output hold (B2).
func summaryOf(first *api.ConnectTaskRequest) (string, error) {
	switch start := first.GetInput().(type) {
	case *api.ConnectTaskRequest_Exec:
		if len(start.Exec.GetArgs()) == 0 {
			return "", fault.New(fault.Invalid, "exec: args: no program is named")
		}
		text := "exec"
		if user := start.Exec.GetUser(); user != "" {
			text += " as " + short(user)
		}
		return text + ": " + short(strings.Join(start.Exec.GetArgs(), " ")), nil
	case *api.ConnectTaskRequest_Attach:
		return "attach", nil
	case *api.ConnectTaskRequest_CopyFrom:
		return pathSummary("copy from", start.CopyFrom.GetPath())
	case *api.ConnectTaskRequest_CopyTo:
		return pathSummary("copy to", start.CopyTo.GetPath())
	default:
		return "", fault.New(fault.Invalid, "the first request must say what to do with the task")
	}
}

// pathSummary says what is copied. Reading is worth as much as running a program: secrets are files.
func pathSummary(what, path string) (string, error) {
	switch {
	case path == "":
		return "", fault.New(fault.Invalid, "copy: path: it is empty; write TASK:/ for the whole of it")
	case len(path) > maxPath || strings.ContainsRune(path, 0):
		return "", fault.New(fault.Invalid, "copy: path: it is longer than %d bytes, or has a NUL", maxPath)
	}
	return what + ": " + short(path), nil
}

// short bounds a text for the audit log.
func short(text string) string { return fault.Clip(text, maxCommand) }
