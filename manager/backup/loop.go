package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// maxReason bounds in bytes the error that the store remembers.
const maxReason = 500

// Config is what a Scheduler needs; all fields are required but FS.
type Config struct {
	Store *store.Store
	// Dir is where backups go when the cluster's spec names no other directory.
	Dir string
	// FS is the file system; nil is that of the operating system.
	FS vfs.FS
	// NodeID is this node's.
	NodeID string
	// Version of this program.
	Version string
	Logger  *slog.Logger
}

// Scheduler is the loop that makes backups by schedule, and sees to it that the cluster has a backup key. It runs on the leader.
type Scheduler struct{ cfg Config }

// NewScheduler returns a Scheduler.
func NewScheduler(cfg Config) (*Scheduler, error) {
	if cfg.Store == nil || cfg.Dir == "" || cfg.NodeID == "" || cfg.Logger == nil {
		return nil, errors.New("backup: Store, Dir, NodeID and Logger are required")
	}
	if cfg.FS == nil {
		cfg.FS = vfs.OS{}
	}
	return &Scheduler{cfg: cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until this manager does not lead any more.
func (s *Scheduler) Run(ctx context.Context) error { return store.Follow(ctx, s.run) }

func (s *Scheduler) run(ctx context.Context) error {
	watch, err := s.cfg.Store.Watch(ctx, 0, object.KindCluster)
	if err != nil {
		return err
	}
	for {
		cluster, err := s.cluster(ctx)
		if err != nil {
			return err
		}
		due, next := Step(time.Now(), stateOf(cluster))
		if due {
			if err := s.perform(ctx, cluster); err != nil {
				return err
			}
			continue
		}
		if err := watch.Await(ctx, next); err != nil {
			return err
		}
	}
}

// cluster returns the cluster object, after making its backup key if it has none; nil while there is no cluster.
func (s *Scheduler) cluster(ctx context.Context) (*api.Cluster, error) {
	cluster, err := theCluster(s.cfg.Store.View)
	if err != nil || cluster == nil || cluster.GetBackupKey() != "" {
		return cluster, err
	}
	if err := s.change(ctx, func(c *api.Cluster) {
		if c.GetBackupKey() == "" {
			c.BackupKey = seal.NewKey().BackupKey()
		}
	}); err != nil {
		return nil, fmt.Errorf("make the backup key: %w", err)
	}
	return theCluster(s.cfg.Store.View)
}

func theCluster(view func(func(store.ReadTx) error) error) (*api.Cluster, error) {
	var cluster *api.Cluster
	err := view(func(tx store.ReadTx) (err error) {
		cluster, err = store.TheCluster(tx)
		return err
	})
	return cluster, err
}

// change commits a change of the cluster object.
func (s *Scheduler) change(ctx context.Context, fn func(*api.Cluster)) error {
	return s.cfg.Store.Update(ctx, "", func(tx store.Tx) error {
		old, err := store.TheCluster(tx)
		if err != nil || old == nil {
			return err
		}
		cluster := proto.CloneOf(old)
		fn(cluster)
		return tx.Update(cluster)
	})
}

// perform makes a backup, and notes what became of it. An error ends the loop: this manager does not lead.
func (s *Scheduler) perform(ctx context.Context, cluster *api.Cluster) error {
	dir := cluster.GetSpec().GetBackupDir()
	if dir == "" {
		dir = s.cfg.Dir
	}
	made, err := s.save(ctx, dir)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrStopped):
		return err
	case err != nil:
		s.cfg.Logger.Error("a scheduled backup failed", "dir", dir, "error", err)
		return s.change(ctx, func(c *api.Cluster) { s.noteFailure(c, err.Error()) })
	}
	if err := s.change(ctx, func(c *api.Cluster) { s.note(c, made) }); err != nil {
		return err
	}
	if len(made.problems) > 0 {
		s.cfg.Logger.Error("a scheduled backup is not sound", "path", made.path, "problems", made.problems)
		return nil
	}
	s.cfg.Logger.Info("made a backup", "path", made.path, "index", made.header.GetIndex())
	keep := int(cluster.GetSpec().GetBackupRetention())
	if keep <= 0 {
		keep = DefaultRetention
	}
	if err := s.prune(dir, made.header.GetClusterId(), filepath.Base(made.path), keep); err != nil {
		s.cfg.Logger.Warn("old backups stay", "dir", dir, "error", err)
	}
	return nil
}

// note remembers a backup, as verified only if nothing is wrong with it.
func (s *Scheduler) note(c *api.Cluster, made saved) {
	verified := c.GetBackup().GetVerified()
	if len(made.problems) == 0 {
		verified = Record(made.header)
	}
	c.Backup = &api.BackupStatus{Verified: verified, Scheduled: Record(made.header), NodeId: s.cfg.NodeID, Path: made.path}
	if len(made.problems) > 0 {
		s.noteFailure(c, fmt.Sprintf("%s is not sound: %s", made.path, strings.Join(made.problems, "; ")))
	}
}

// noteFailure remembers why there is no sound backup.
func (s *Scheduler) noteFailure(c *api.Cluster, reason string) {
	if c.GetBackup() == nil {
		c.Backup = new(api.BackupStatus)
	}
	c.Backup.Error = fmt.Sprintf("on node %s: %s", s.cfg.NodeID, fault.Clip(reason, maxReason))
	c.Backup.FailedAt = timestamppb.New(time.Now())
}
