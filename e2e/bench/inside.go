package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/overlay"
)

// inside measures, in a container that runs, another process beside the same program without walls; and the mount of a root file
// system with that container's ids.
func (l *launcher) inside(ctx context.Context, floor *floorProcess) error {
	r, err := l.request("inside", "sleep", "1000")
	if err != nil {
		return err
	}
	state, err := l.Create(ctx, r)
	if err != nil {
		return err
	}
	if err := l.Start(ctx, r.ID); err != nil {
		return err
	}
	var bare, ours []time.Duration
	for range launches {
		took, err := floor.launch("exec")
		if err != nil {
			return err
		}
		bare = append(bare, took)
		took, err = timed(func() error { return l.exec(ctx, r.ID) })
		if err != nil {
			return err
		}
		ours = append(ours, took)
	}
	l.row("exec, floor: fork and exec in C", spread(bare), "")
	beyond := float64(median(ours)-median(bare)) / float64(time.Millisecond)
	l.row("exec in a running container", fmt.Sprintf("%s, %.1f ms beyond the floor", spread(ours), beyond), "<= 2 ms beyond")
	mounts, err := l.mounts(state.Pid)
	if err != nil {
		return err
	}
	l.row("mount of a root file system", spread(mounts), "<= 1 ms")
	return nil
}

func (l *launcher) exec(ctx context.Context, id string) error {
	e, err := l.Exec(ctx, id, client.ExecRequest{Args: []string{"/busybox", "true"}})
	if err != nil {
		return err
	}
	code, err := e.Wait(ctx)
	e.Close()
	if code != 0 {
		err = errors.Join(err, fmt.Errorf("exec: exit code %d", code))
	}
	return err
}

// mounts measures root file systems of one layer and a writable one.
func (l *launcher) mounts(pid int) ([]time.Duration, error) {
	var dirs [3]string
	for i, name := range []string{"probe", "upper", "work"} {
		dirs[i] = filepath.Join(l.dir, name)
		if err := os.Mkdir(dirs[i], 0o700); err != nil {
			return nil, err
		}
	}
	driver, err := overlay.Probe(dirs[0])
	if err != nil {
		return nil, err
	}
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	var out []time.Duration
	for range launches {
		fd := -1
		took, err := timed(func() (err error) {
			fd, err = driver.Mount(overlay.Layers{
				Lower: []string{l.layer}, Upper: dirs[1], Work: dirs[2], UserNS: int(userns.Fd()), RootUID: 100000, RootGID: 100000,
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		unix.Close(fd)
		out = append(out, took)
	}
	return out, nil
}

// crowdFloor measures how many of the floor's containers a second live when several are launched at once.
func (l *launcher) crowdFloor() error {
	var floors []*floorProcess
	for range crowd {
		floor, err := l.startFloor()
		if err != nil {
			return err
		}
		defer floor.close()
		floors = append(floors, floor)
	}
	rate, err := atOnce(func(w int) (func(int) error, error) {
		return func(int) error {
			_, err := floors[w].launch("bare")
			return err
		}, nil
	})
	if err != nil {
		return err
	}
	l.row(fmt.Sprintf("launches, floor, %d at once", crowd), fmt.Sprintf("%.0f/s", rate), "")
	return nil
}
