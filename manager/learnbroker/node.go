package learnbroker

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/reach"
)

// answerTimeout bounds how long a node may take to begin, and to end.
const answerTimeout = 5 * time.Second

// maxAnswer is the size of what a node may say at once, in bytes: all names that there are have 20 KB.
const maxAnswer = 256 << 10

// node is the recording on one node.
type node struct {
	// constant
	id, hostname string
	tasks        []string // that live there at the beginning

	// The rest is owned by the learning.

	// calls is what the node said last, or nil.
	calls *api.RecordNodeCallsResponse
	// err is why it records no more, or nil.
	err error
}

// event is news of a node: what it said, or its end.
type event struct {
	node  *node
	calls *api.RecordNodeCallsResponse // or nil at the end
	err   error                        // at the end, or nil
}

// run records until stop is closed, and sends what the node says and how it ended to events.
func (n *node) run(ctx context.Context, cfg Config, address, serviceID string, stop <-chan struct{}, events chan<- event) {
	tell := func(e event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	err := n.record(ctx, cfg, address, serviceID, stop, func(r *api.RecordNodeCallsResponse) { tell(event{node: n, calls: r}) })
	tell(event{node: n, err: err})
}

func (n *node) record(ctx context.Context, cfg Config, address, serviceID string, stop <-chan struct{}, tell func(*api.RecordNodeCallsResponse),
) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(answerTimeout, func() { cancel(reach.Silent) })
	defer silent.Stop()
	defer func() {
		if err != nil {
			err = reason(ctx, err)
		}
	}()
	conn, err := cfg.Dial(address, n.id)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := api.NewNodeLearningClient(conn).RecordNodeCalls(ctx, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return err
	}
	start := &api.RecordStart{ServiceId: serviceID, TaskIds: n.tasks}
	if err := stream.Send(&api.RecordNodeCallsRequest{Step: &api.RecordNodeCallsRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	stopped := make(chan struct{})
	relayed := make(chan struct{})
	defer func() {
		cancel(nil)
		<-relayed
	}()
	go func() {
		defer close(relayed)
		select {
		case <-stop:
			close(stopped)
			silent.Reset(answerTimeout)
			// What fails shows on the other way.
			_ = stream.Send(&api.RecordNodeCallsRequest{Step: &api.RecordNodeCallsRequest_Stop{Stop: &api.LearnStop{}}})
		case <-ctx.Done():
		}
	}()
	for first := true; ; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			select {
			case <-stopped:
				return nil
			default:
				return errors.New("the node ended its recording")
			}
		}
		if err != nil {
			return err
		}
		if first {
			silent.Stop()
		}
		tell(r)
	}
}

// reason says why a node does not record, in words for people.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, reach.Silent) {
		return cause
	}
	switch status.Code(err) {
	case codes.Unimplemented:
		return errors.New("the node runs a version of Skep that can't record: upgrade it")
	case codes.Unavailable:
		return errors.New("the node can't be reached")
	case codes.Unknown:
		return err
	default:
		return errors.New(clip(status.Convert(err).Message()))
	}
}
