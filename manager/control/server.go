package control

import (
	"context"
	"errors"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
)

// LogReader reads the logs of tasks, wherever they run.
type LogReader interface {
	// ReadLogs calls send with one event after the other, never from two goroutines at once, until all are sent, send
	// returns an error, or ctx ends.
	ReadLogs(ctx context.Context, request *api.ReadLogsRequest, send func(*api.ReadLogsResponse) error) error
}

// Config is what a Server needs. All fields are required unless they say otherwise.
type Config struct {
	Store *store.Store
	// Status describes the Raft group; nil takes that of Store.
	Status func() store.Status
	// RemoveMember takes a manager out of the Raft group and returns when it gets no more of the log; nil is that of Store.
	RemoveMember func(ctx context.Context, raftID uint64) error
	// Logs answers ReadLogs.
	Logs LogReader
	// Stats asks nodes for ReadStats.
	Stats StatsReader
	// Placement answers ExplainPlacement.
	Placement PlacementExplainer
	// Planner answers PlanService.
	Planner Planner
	// Users is the CA, for users' certificates.
	Users UserIssuer
	// NewUnlockKey makes a fresh unlock key in the form that people type.
	NewUnlockKey func() string
	// NewBackupKey makes a fresh backup key in the form that people keep.
	NewBackupKey func() string
	// Identity is who asks an external CA; nil asks as nobody.
	Identity *ca.Identity
}

// Server is the service Control.
type Server struct {
	api.UnimplementedControlServer
	Config
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Logs == nil || cfg.Stats == nil || cfg.Placement == nil || cfg.Planner == nil || cfg.Users == nil || cfg.NewUnlockKey == nil || cfg.NewBackupKey == nil {
		return nil, errors.New("control: Store, Logs, Stats, Placement, Planner, Users, NewUnlockKey and NewBackupKey are required")
	}
	if cfg.Status == nil {
		cfg.Status = cfg.Store.Status
	}
	if cfg.RemoveMember == nil {
		cfg.RemoveMember = cfg.Store.RemoveMember
	}
	return &Server{Config: cfg}, nil
}

// ReadLogs hands over to the log broker.
func (s *Server) ReadLogs(request *api.ReadLogsRequest, stream api.Control_ReadLogsServer) error {
	return s.Logs.ReadLogs(stream.Context(), request, stream.Send)
}

// patience bounds how long a read waits for a majority of managers: several elections.
const patience = 10 * time.Second

// errNoMajority is why a read ends that no majority answers.
var errNoMajority = fault.New(fault.Unavailable, "The swarm does not have a leader. It's possible that too few managers are online. "+
	"Make sure more than half of the managers are online.")

// view calls fn with a linearizable snapshot. Every manager has one: it asks the leader only how far it must be.
func (s *Server) view(ctx context.Context, fn func(store.ReadTx) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, patience, errNoMajority)
	defer cancel()
	if err := s.Store.Barrier(bounded); err != nil {
		return storeFault(err)
	}
	return storeFault(s.Store.View(fn))
}

// update commits what fn does under a request id. A repetition of an applied request is success (C2).
func (s *Server) update(ctx context.Context, requestID string, fn func(store.Tx) error) error {
	err := s.Store.Update(ctx, requestID, fn)
	if errors.Is(err, store.ErrDuplicate) {
		return nil
	}
	return storeFault(err)
}

// current returns the object that key means as it is now, after a write to it.
func current[T store.Object](s *Server, key string) (T, error) {
	var found T
	err := s.Store.View(func(tx store.ReadTx) (err error) {
		found, err = resolve[T](tx, key)
		return err
	})
	return found, storeFault(err)
}

// storeFault gives an error of the store its kind. Faults pass through.
func storeFault(err error) error {
	var (
		notLeader *store.NotLeaderError
		limit     *store.LimitError
	)
	switch {
	case err == nil, fault.KindOf(err) != fault.Internal:
		return err
	case errors.As(err, &notLeader):
		return fault.NewNotLeader(notLeader.LeaderAddr)
	case errors.As(err, &limit):
		return fault.Wrap(fault.Exhausted, err)
	case errors.Is(err, store.ErrConflict):
		return fault.New(fault.Conflict, "update out of sequence")
	case errors.Is(err, store.ErrOutdated):
		return fault.Wrap(fault.Precondition, err)
	case errors.Is(err, store.ErrNotFound):
		return fault.Wrap(fault.NotFound, err)
	case errors.Is(err, store.ErrNameConflict), errors.Is(err, store.ErrExists):
		return fault.Wrap(fault.AlreadyExists, err)
	case errors.Is(err, store.ErrStopped), errors.Is(err, store.ErrResync), errors.Is(err, store.ErrBusy):
		return fault.Wrap(fault.Unavailable, err)
	default:
		return err
	}
}

// resolve finds the object that a person means.
func resolve[T store.Object](tx store.ReadTx, key string) (T, error) { return lookup.One[T](tx, key) }

// maxQuoted bounds in bytes how much of the user's input an error repeats.
const maxQuoted = 100

func clip(s string) string { return fault.Clip(s, maxQuoted) }
