package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/lsm"
)

// Adopt takes over the containers of the last run of the daemon, and removes those that aren't known. Lost are those that ended with the
// machine, or nobody knows how.
func (e *Executor) Adopt(ctx context.Context, known []string) (found map[string]*api.ContainerStatus, lost []string, err error) {
	states, err := e.cfg.Runtime.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	directories, err := directoriesIn(e.cfg.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list containers: %w", err)
	}
	if err := errors.Join(e.cfg.Network.Restore(known), e.cfg.Identities.Adopt(known)); err != nil {
		return nil, nil, err
	}
	if found, lost, err = e.adoptContainers(ctx, states, known); err != nil {
		return nil, nil, err
	}
	for _, id := range directories {
		if err := e.adoptDirectory(ctx, id, slices.Contains(known, id), found[id] != nil); err != nil {
			return nil, nil, fmt.Errorf("adopt container %s: %w", id, err)
		}
	}
	return found, lost, nil
}

// adoptContainers returns the status of the containers that are known and were started, and deletes the others (I15).
func (e *Executor) adoptContainers(ctx context.Context, states []State, known []string) (found map[string]*api.ContainerStatus, lost []string, err error) {
	found = map[string]*api.ContainerStatus{}
	for _, s := range states {
		if !s.Started || !slices.Contains(known, s.ID) {
			if err := e.deleteContainer(ctx, s.ID); err != nil {
				return nil, nil, err
			}
			continue
		}
		found[s.ID] = e.status(s)
		r, err := readRecord(e.dir(s.ID))
		if err == nil {
			if r.Checked {
				found[s.ID].Health = api.HealthState_HEALTH_STATE_STARTING
			}
			found[s.ID].Values = r.received()
		}
		// A machine that is shut down in order ends containers, too, and the runtime may see how.
		if s.Unknown || s.PID == 0 && r.Boot != "" && r.Boot != e.boot {
			lost = append(lost, s.ID)
		}
	}
	return found, lost, nil
}

// adoptDirectory takes over what a known container has, or removes what an unknown one left. The runtime may have the container.
func (e *Executor) adoptDirectory(ctx context.Context, id string, known, running bool) error {
	r, err := readRecord(e.dir(id))
	if !known || errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(e.dir(id))
	}
	if _, ok := e.find(id); ok || r.Released {
		return nil
	}
	if err != nil {
		e.log.Error("what a container has of this node can't be read: its directory is kept, and its image may be removed; replace the task", "task", id, "error", err)
		if running {
			e.adoptUnread(id)
		}
		return nil
	}
	h := &held{
		image: e.readopt(ctx, id, r.Image), mounted: map[string]Image{}, idBase: r.IDBase, selinux: lsm.Labels{Process: r.Process, Mount: r.Mount},
	}
	for _, digest := range r.Mounted {
		h.mounted[digest] = e.readopt(ctx, id, digest)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readoptIDs(id, h)
	lsm.ReserveLabel(h.selinux.Process)
	return nil
}

// adoptUnread keeps the ids of a container whose record can't be read from others (E1). Its first one owns the directory for the overlay's
// own use, which nothing in the container reaches.
func (e *Executor) adoptUnread(id string) {
	var stat unix.Stat_t
	if err := unix.Lstat(filepath.Join(e.dir(id), workDir), &stat); err != nil {
		e.log.Error("the user ids of a running container are not known", "task", id, "error", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readoptIDs(id, &held{image: Image{Release: func() {}}, idBase: stat.Uid})
}

// readoptIDs keeps what a container has, and its ids from others. e.mu is held.
func (e *Executor) readoptIDs(id string, h *held) {
	if !e.ranges.hold(h.idBase) {
		e.log.Warn("a container has user ids outside of the configured range", "task", id, "first", h.idBase)
	}
	e.held[id] = h
}

// readopt keeps an image of a running container on the node.
func (e *Executor) readopt(ctx context.Context, id, digest string) Image {
	image, err := e.cfg.Images.Acquire(ctx, digest)
	if err != nil {
		// The container runs on all the same: its mounts keep the files. It just can't tell the image's stop signal.
		e.log.Warn("the image of a running container is gone", "task", id, "image", digest, "error", err)
		return Image{Digest: digest, Release: func() {}}
	}
	return image
}
