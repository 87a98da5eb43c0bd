package logbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logselect"
	"github.com/skep-io/skep/manager/reach"
)

// silenceTimeout bounds how long a node may take for a line that it has already, without follow.
const silenceTimeout = 10 * time.Second

// Windows of gRPC, in bytes.
const (
	// window bounds what the manager keeps of a task's log for a reader that is slow. gRPC would let it grow to 16 MiB, and a read is of up to
	// maxTasks tasks. Where an answer takes 1 ms, a task's lines still come at 128 MB/s.
	window = 128 << 10
	// connectionWindow is renewed whatever was read, so it bounds nothing but how much is on the way.
	connectionWindow = 1 << 20
)

// errSilent is the cause of the end of a source whose node said nothing for so long.
var errSilent = errors.New("the node stopped answering")

// peer is the connection to one node, which its sources share.
type peer struct {
	node *api.Node
	done chan struct{}    // closed by connect
	conn *grpc.ClientConn // or nil; set before done
	err  error            // set before done
}

// connect connects, for all who wait on done.
func (p *peer) connect(ctx context.Context, dial reach.Dial) {
	defer close(p.done)
	p.conn, p.err = reach.Connect(ctx, dial, p.node, grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(connectionWindow))
}

// wait returns the connection once it is there.
func (p *peer) wait(ctx context.Context) (*grpc.ClientConn, error) {
	select {
	case <-p.done:
		return p.conn, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// close ends the connection, after connect.
func (p *peer) close() {
	if p.conn != nil {
		_ = p.conn.Close() // it was only read from
	}
}

// source reads the lines of one task.
type source struct {
	index int
	task  *api.Task
	peer  *peer
	// wanted are the lines that are passed on.
	wanted logselect.Selection
	// more has room for one: the reader took the last line.
	more   chan struct{}
	cancel context.CancelCauseFunc
}

// event is news of a source: a line, or its end.
type event struct {
	source *source
	line   *api.LogLine // nil at the end
	err    error        // of the end, nil when all lines were read
}

// run reads until the task's log or ctx ends, and sends what it reads to events, each next line only after more. It gives up
// when whole, the context of the whole read, ends.
func (s *source) run(whole, ctx context.Context, options *api.LogOptions, events chan<- event) {
	emit := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-whole.Done():
			return false
		}
	}
	err := s.read(ctx, options, func(line *api.LogLine) bool {
		if !emit(event{source: s, line: line}) {
			return false
		}
		select {
		case <-s.more:
			return true
		case <-whole.Done():
			return false
		}
	})
	emit(event{source: s, err: err})
}

// read calls each for one line after the other, until there are no more or it returns false.
func (s *source) read(ctx context.Context, options *api.LogOptions, each func(*api.LogLine) bool) error {
	conn, err := s.peer.wait(ctx)
	if err != nil {
		return fmt.Errorf("can't be reached: %w", err)
	}
	stream, err := api.NewAgentClient(conn).ReadTaskLogs(ctx, &api.ReadTaskLogsRequest{TaskIds: []string{s.task.GetId()}, Options: options})
	if err != nil {
		return said(ctx, err)
	}
	watchdog := time.AfterFunc(silenceTimeout, func() { s.cancel(errSilent) })
	defer watchdog.Stop()
	for {
		if options.GetFollow() {
			watchdog.Stop() // silence is normal
		} else {
			watchdog.Reset(silenceTimeout)
		}
		response, err := stream.Recv()
		watchdog.Stop()
		if err != nil {
			return said(ctx, err)
		}
		line := response.GetLine()
		if !onlyMissed(line) && (line == nil || !s.wanted.Has(line.GetTime().AsTime(), line.GetData())) {
			continue // the node says that it goes on
		}
		if !each(response.GetLine()) {
			return context.Cause(ctx)
		}
	}
}

// onlyMissed reports whether a node says with a line only how many are missing at the end of what was asked for.
func onlyMissed(line *api.LogLine) bool { return line.GetMissed() > 0 && line.GetTime() == nil }

// said turns the end of a stream into the reason for a gap, or nil when nothing is missing.
func said(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, io.EOF), status.Code(err) == codes.NotFound:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return errors.New(status.Convert(err).Message())
	}
}
