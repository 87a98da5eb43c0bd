package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skep-io/skep/manager/allocator"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/manager/gossipkeys"
	"github.com/skep-io/skep/manager/joingrant"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/orchestrator/global"
	"github.com/skep-io/skep/manager/orchestrator/job"
	"github.com/skep-io/skep/manager/orchestrator/reaper"
	"github.com/skep-io/skep/manager/orchestrator/replicated"
	"github.com/skep-io/skep/manager/orchestrator/restart"
	"github.com/skep-io/skep/manager/orchestrator/update"
	"github.com/skep-io/skep/manager/rolemanager"
	"github.com/skep-io/skep/manager/rootrotation"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/store"
)

// restartPause is how long a leader waits before it starts its loops again after one of them failed.
const restartPause = time.Second

var (
	// errDeposed is the end of a tenure.
	errDeposed = errors.New("this manager does not lead any more")
	// errEnded is returned when a loop ends for no reason: it is a defect.
	errEnded = errors.New("a loop ended by itself")
)

// loop is something that runs on the leader until its context ends.
type loop struct {
	name string
	run  func(ctx context.Context) error
}

// runner is what most loops are.
type runner interface {
	Run(ctx context.Context) error
}

// loops makes all loops of a tenure afresh.
func (m *Manager) loops() ([]loop, error) {
	list := []loop{{"liveness", m.dispatcher.Lead}, {"audit", m.audit.Retain}}
	var failed error
	add := func(name string, r runner, err error) {
		failed = errors.Join(failed, err)
		list = append(list, loop{name, r.Run})
	}
	s, log := m.cfg.Store, m.cfg.Logger
	shared := orchestrator.Config{Store: s, Log: log}
	roles, err := rolemanager.New(rolemanager.Config{Store: s, Group: s, Logger: log})
	add("roles", roles, err)
	allocate, err := allocator.New(allocator.Config{Store: s, Log: log})
	add("allocator", allocate, err)
	schedule, err := scheduler.New(scheduler.Config{Store: s, Log: log})
	add("scheduler", schedule, err)
	replicate, err := replicated.New(shared)
	add("replicated", replicate, err)
	everywhere, err := global.New(shared)
	add("global", everywhere, err)
	jobs, err := job.New(shared)
	add("job", jobs, err)
	again, err := restart.New(shared)
	add("restart", again, err)
	replace, err := update.New(shared)
	add("update", replace, err)
	reap, err := reaper.New(shared)
	add("reaper", reap, err)
	grants, err := joingrant.New(joingrant.Config{Store: s, Logger: log})
	add("join grants", grants, err)
	rotate, err := rootrotation.New(rootrotation.Config{Store: s, Logger: log})
	add("rootrotation", rotate, err)
	gossip, err := gossipkeys.New(s)
	add("gossip keys", gossip, err)
	backups, err := backup.NewScheduler(backup.Config{
		Store: s, Dir: m.cfg.BackupDir, NodeID: m.cfg.NodeID, Version: m.cfg.Version, Logger: log,
	})
	add("backup", backups, err)
	return list, failed
}

// tenures runs the loops while this manager leads.
type tenures struct {
	leadership func() (store.Leadership, <-chan struct{})
	loops      func() ([]loop, error)
	logger     *slog.Logger
}

// run returns nil when ctx ends.
func (t *tenures) run(ctx context.Context) error {
	for {
		leadership, changed := t.leadership()
		if !leadership.Self {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		err := t.serve(ctx, leadership.Term)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errDeposed):
			t.logger.Info("stopped leading", "term", leadership.Term)
			continue
		case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrStopped): // the news is on its way
		default:
			t.logger.Error("a loop of the leader failed; all of them start again", "term", leadership.Term, "error", err)
		}
		pause := time.NewTimer(restartPause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// serve runs all loops for one term, and returns why they ended, all of them.
func (t *tenures) serve(ctx context.Context, term uint64) error {
	list, err := t.loops()
	if err != nil {
		return err
	}
	t.logger.Info("started leading", "term", term)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.untilDeposed(ctx, term) })
	for _, l := range list {
		group.Go(func() error {
			err := l.run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errEnded
			}
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// untilDeposed returns errDeposed once this manager does not lead in the term any more.
func (t *tenures) untilDeposed(ctx context.Context, term uint64) error {
	for {
		leadership, changed := t.leadership()
		if !leadership.Self || leadership.Term != term {
			return errDeposed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
