package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// Disk says where a store is kept, and what seals it.
type Disk struct {
	// FS is the file system; nil is that of the operating system.
	FS vfs.FS
	// Dir is the data directory. It is made if it is missing, and belongs to the store alone.
	Dir string
	// KEK opens the key ring, or seals a new one, see seal.KeyFile and seal.ParseUnlockKey.
	KEK seal.Key
	// Source says what KEK is. Only a new store needs it.
	Source seal.Source
	// SegmentSize is that of wal.Disk; 0 is its default.
	SegmentSize int
}

func (d Disk) fs() vfs.FS {
	if d.FS == nil {
		return vfs.OS{}
	}
	return d.FS
}

func (d Disk) wal() wal.Disk { return wal.Disk{FS: d.fs(), Dir: d.Dir, SegmentSize: d.SegmentSize} }

// Config is what Open needs.
type Config struct {
	Disk
	// Transport reaches the other members; nil is for a group of one that stays so.
	Transport Transport
	// Logger is where state changes are logged; nil logs nothing.
	Logger *slog.Logger
	// SnapshotInterval is the number of entries between snapshots; 0 is DefaultSnapshotInterval.
	SnapshotInterval uint64
	// InsecureLeaseReads makes Barrier on the leader cost no round trip; see raftcore.Config for when it is wrong.
	InsecureLeaseReads bool
}

// DefaultSnapshotInterval is the number of log entries between two snapshots.
const DefaultSnapshotInterval = 10000

const (
	// keepEntries and keepBytes are what is left in the log behind a snapshot, for followers that are a little behind.
	keepEntries = 500
	keepBytes   = 8 << 20
	// maxLogBytes makes a snapshot before its turn, because the log since the last one is in memory.
	maxLogBytes = 32 << 20
	// tickInterval makes elections start after 1 to 2 s without a leader.
	tickInterval = 100 * time.Millisecond
)

// The entry that a new group starts from, as a snapshot.
const (
	firstIndex = 1
	firstTerm  = 1
)

// SetSnapshotInterval changes the number of entries between snapshots from now on; 0 is DefaultSnapshotInterval. A local store makes
// none.
func (s *Store) SetSnapshotInterval(entries uint64) {
	if s.cluster == nil {
		return
	}
	if entries == 0 {
		entries = DefaultSnapshotInterval
	}
	s.cluster.snapshotInterval.Store(entries)
}

// Inspect says, without any key, which cluster the store in dir belongs to, and where its KEK comes from: the unlock key of
// a person, or a key file. It returns wal.ErrNone when there is no store.
func Inspect(fsys vfs.FS, dir string) (clusterID string, source seal.Source, err error) {
	return wal.Inspect(fsys, dir)
}

// Bootstrap makes the store of the first manager of a new cluster. self is the manager; its raft id must not be 0.
func Bootstrap(disk Disk, clusterID string, self *api.Member) error {
	self = proto.CloneOf(self)
	self.Protocol = Protocol
	data, err := proto.Marshal(&api.StoreSnapshot{ClusterId: clusterID, Index: firstIndex, Members: []*api.Member{self}})
	if err != nil {
		return fmt.Errorf("encode first snapshot: %w", err)
	}
	start := &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(firstIndex), Term: proto.Uint64(firstTerm),
		ConfState: &raftpb.ConfState{Voters: []uint64{self.GetRaftId()}},
	}}
	identity := &api.JoinResponse{RaftId: self.GetRaftId(), Members: []*api.Member{self}}
	return wal.Create(disk.wal(), clusterID, disk.KEK, disk.Source, identity, start)
}

// Prepare makes the empty store of a manager that joined a group: the leader sends it the state. joined is the leader's
// answer, whose members include this manager.
func Prepare(disk Disk, clusterID string, joined *api.JoinResponse) error {
	return wal.Create(disk.wal(), clusterID, disk.KEK, disk.Source, joined, nil)
}

// Open reads the store that Bootstrap or Prepare made, and checks all of it. Before Run, it only shows the last snapshot. It
// returns wal.ErrNone, wal.ErrFormat, seal.ErrWrongKey, or a *wal.CorruptError that names what is damaged.
func Open(cfg Config) (*Store, error) {
	if cfg.SnapshotInterval == 0 {
		cfg.SnapshotInterval = DefaultSnapshotInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w, state, err := wal.Open(cfg.wal(), cfg.KEK)
	if err != nil {
		return nil, err
	}
	if state.Torn {
		cfg.Logger.Warn("a crash cut the last write to the log short; nobody was told that it was durable, so it is dropped")
	}
	c, err := newCluster(cfg, w, state)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &Store{machine: c.machine, hub: c.hub, log: c, cluster: c}, nil
}

// newCluster makes the parts of a replicated store.
func newCluster(cfg Config, w *wal.WAL, state *wal.State) (*cluster, error) {
	m := newMachine(state.Cluster)
	meta, err := loadSnapshot(w, state, m)
	if err != nil {
		return nil, err
	}
	if meta == nil {
		m.members.load(state.Identity.GetMembers(), nil)
	}
	storage, err := newStorage(state, meta)
	if err != nil {
		return nil, err
	}
	core, err := raftcore.New(raftcore.Config{
		ID: state.Identity.GetRaftId(), Storage: storage, Applied: m.index, Logger: raftLogger{cfg.Logger}, InsecureLeaseReads: cfg.InsecureLeaseReads,
	})
	if err != nil {
		return nil, err
	}
	c := &cluster{
		transport: cfg.Transport, logger: cfg.Logger,
		id: state.Identity.GetRaftId(), nodeID: nodeID(state.Identity),
		wal: w, storage: storage, machine: m, hub: newHub(m.index),
		received: make(chan raftcore.Receive, 1024), proposals: make(chan *proposal, 1024), barriers: make(chan chan error, 1024),
		calls: make(chan func() error), inputs: make(chan raftcore.Input, 64), removal: make(chan struct{}, 1),
		jobs: make(chan []job), written: make(chan []job), captures: make(chan capture, 1), prepares: make(chan struct{}, 1), stopped: make(chan struct{}),
		saved: state.HardState, core: core, pending: map[string][]*proposal{}, confState: meta.GetConfState(),
		snapshotIndex: m.index, appliedTerm: meta.GetTerm(), changed: make(chan struct{}),
		reads: reads{id: newQuestionID()},
	}
	c.snapshotInterval.Store(cfg.SnapshotInterval)
	c.membersChanged()
	return c, nil
}

func nodeID(identity *api.JoinResponse) string {
	for _, member := range identity.GetMembers() {
		if member.GetRaftId() == identity.GetRaftId() {
			return member.GetNodeId()
		}
	}
	return ""
}

// loadSnapshot gives a machine the state that the log builds on, and returns what describes it; nil when there is none.
func loadSnapshot(w *wal.WAL, state *wal.State, m *machine) (*raftpb.SnapshotMetadata, error) {
	if state.Snapshot == nil {
		return nil, nil
	}
	r, err := w.OpenSnapshot(state.Snapshot.GetIndex(), state.Snapshot.GetTerm())
	if err != nil {
		return nil, err
	}
	b, err := readState(r, state.Cluster, r.Meta.GetIndex())
	err = errors.Join(err, r.Close())
	var corrupt *wal.CorruptError
	switch {
	case errors.As(err, &corrupt):
		return nil, corrupt
	case err != nil:
		return nil, &wal.CorruptError{What: "snapshot", Index: r.Meta.GetIndex(), Err: err}
	}
	return r.Meta, m.restore(b)
}

// Run takes part in the Raft group until ctx ends, and then closes the store. It returns nil after ctx, ErrRemoved when this
// manager was removed from the group, and otherwise why it can't go on, such as a failed disk. It is called once; a local
// store needs no Run.
func (s *Store) Run(ctx context.Context) error {
	if s.cluster == nil {
		<-ctx.Done()
		return nil
	}
	return s.cluster.run(ctx)
}

func (c *cluster) run(ctx context.Context) error {
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.write(ctx) })
	g.Go(func() error { return c.capture(ctx) })
	g.Go(func() error { return c.prepare(ctx) })
	if c.transport != nil {
		g.Go(func() error { return c.transport.Run(ctx, sink{c, ctx.Done()}) })
	}
	g.Go(func() error { return c.loop(ctx) })
	err := g.Wait()
	close(c.stopped)
	c.hub.stop()
	c.failAll()
	err = errors.Join(err, c.wal.Close())
	if outer.Err() != nil && errors.Is(err, context.Cause(outer)) {
		return nil
	}
	return err
}
