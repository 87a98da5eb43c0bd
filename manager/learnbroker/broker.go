package learnbroker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
)

const (
	// maxLearning bounds the calls of LearnSeccomp at once: each has a connection to every node.
	maxLearning = 8
	// minDuration and maxDuration bound one recording.
	minDuration = time.Second
	maxDuration = 24 * time.Hour
	// pace is the time between two reports of progress.
	pace = time.Second
)

// Config is what a Broker needs; all fields are required.
type Config struct {
	Store *store.Store
	// Dial makes a connection to a node without waiting for it. The peer must prove to be the node.
	Dial reach.Dial
	// Compile returns an error for a profile, in Docker's JSON, that nodes can't use.
	Compile func(profile []byte) error
	// Began puts into the audit log that a stream begins something with a service, and Ended how that has ended. They are called with the
	// stream's context, by its handler.
	Began func(ctx context.Context, serviceID, serviceName, summary string)
	Ended func(ctx context.Context, how string)
}

// Broker serves Learning.
type Broker struct {
	api.UnimplementedLearningServer
	cfg      Config
	learning atomic.Int32
}

// New returns a Broker.
func New(cfg Config) (*Broker, error) {
	if cfg.Store == nil || cfg.Dial == nil || cfg.Compile == nil || cfg.Began == nil || cfg.Ended == nil {
		return nil, errors.New("learnbroker: Store, Dial, Compile, Began and Ended are required")
	}
	return &Broker{cfg: cfg}, nil
}

type people = grpc.BidiStreamingServer[api.LearnSeccompRequest, api.LearnSeccompResponse]

// LearnSeccomp implements api.LearningServer.
func (b *Broker) LearnSeccomp(stream people) error {
	if b.learning.Add(1) > maxLearning {
		b.learning.Add(-1)
		return fault.New(fault.Exhausted, "this manager learns for %d callers already: wait until one ends, or ask another manager", maxLearning)
	}
	defer b.learning.Add(-1)
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(fault.Invalid, "the first request must say what to learn")
	}
	duration := start.GetDuration().AsDuration()
	if duration < minDuration || duration > maxDuration {
		return fault.New(fault.Invalid, "duration: %v is not within %v to %v", duration, minDuration, maxDuration)
	}
	ctx := stream.Context()
	subject, err := b.find(ctx, start.GetService())
	if err != nil {
		return err
	}
	service := subject.service
	b.cfg.Began(ctx, service.GetId(), subject.name(), fmt.Sprintf("learn a seccomp profile for %v", duration))
	stop := make(chan struct{})
	go func() { // ends with the stream, which ends when this returns
		if _, err := stream.Recv(); err == nil {
			close(stop) // whatever it says: there is nothing else to say
		}
	}()
	l := newLearning(b.cfg, subject, func(p *api.LearnProgress) error {
		return stream.Send(&api.LearnSeccompResponse{Event: &api.LearnSeccompResponse_Progress{Progress: p}})
	})
	if err := l.run(ctx, duration, stop); err != nil {
		return err
	}
	result, err := b.result(ctx, l)
	if err != nil {
		return err
	}
	p := result.GetProgress()
	b.cfg.Ended(ctx, fmt.Sprintf("%d calls of %d tasks", len(p.GetUsed()), p.GetTasks()))
	return stream.Send(&api.LearnSeccompResponse{Event: &api.LearnSeccompResponse_Result{Result: result}})
}
