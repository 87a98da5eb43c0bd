package supervisor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/memfs"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
	"github.com/skep-io/skep/runtime/thread"
)

// rewriteTime bounds one rewriting: a container may have a file system of its own in the way, which answers when it likes.
const rewriteTime = 10 * time.Second

// moveMountBeneath puts the mount under the one that is at its place; see move_mount in linux/mount.h, since 6.5.
const moveMountBeneath = 0x200

// fileMark names the file system that shows something at a target, relative to the root, of a container. The mount tables of the container
// have it as the source, so that every supervisor finds the file system again.
func fileMark(id, target string) string {
	return fmt.Sprintf("skep-files-%.16x", sha256.Sum256([]byte(id+"\x00"+target)))
}

// rewriting is a file with a new content.
type rewriting struct {
	protocol.File
	// target is what was mounted: the directory of the file, or the file if it is a single one.
	target         string
	mode, uid, gid uint32
	// single is the mount that takes the place of a single file, or -1.
	single int
}

func (r *rewriting) failed(err error) error {
	return fmt.Errorf("file %.128q: %w", path.Join(r.Dir, r.Name), err)
}

// carryOutRewrite answers a call.
func (v *server) carryOutRewrite(c *container, call protocol.Call, attachment []byte) error {
	if call.Request == nil {
		return fmt.Errorf("%w: rewrite without files", protocol.ErrInvalid)
	}
	if err := call.Request.Attach(attachment); err != nil {
		return fmt.Errorf("%w: %w", protocol.ErrInvalid, err)
	}
	return c.rewrite(call.Request.Files)
}

// rewrite gives files of a running container new contents (I11). When it fails, some may be new; a second try with the same files completes
// it.
func (c *container) rewrite(files []protocol.File) error {
	if err := c.executable(); err != nil {
		return err
	}
	plan, err := loadExecPlan(c.dir)
	if err != nil {
		return err
	}
	all, err := rewritings(files, plan)
	if err != nil {
		return err
	}
	if !c.rewriting.TryLock() {
		clearRewritings(all)
		return fmt.Errorf("%w: files of container %s are being rewritten already", protocol.ErrState, c.id)
	}
	done := make(chan error, 1)
	thread.Go(func() { // which ends in the container's namespace
		err := c.rewriteAll(all, plan)
		clearRewritings(all)
		c.rewriting.Unlock()
		done <- err
	})
	select {
	case err = <-done:
	case <-time.After(rewriteTime): // it ends when the container does, if not before
		err = fmt.Errorf("%w: something in the container keeps them for %v already", protocol.ErrState, rewriteTime)
	}
	if err != nil {
		return fmt.Errorf("rewrite files of container %s: %w", c.id, err)
	}
	return nil
}

// rewritings checks what is to be written. It has copies of the data: a rewriting may outlast its call.
func rewritings(files []protocol.File, plan *spec.Plan) ([]rewriting, error) {
	if len(files) > maxFiles {
		return nil, fmt.Errorf("%w: %d files, at most %d are possible", protocol.ErrInvalid, len(files), maxFiles)
	}
	var out []rewriting
	for _, f := range files {
		r := rewriting{File: f, single: -1}
		var err error
		if r.target, err = target(f); err == nil {
			r.mode, r.uid, r.gid, err = owned(f, plan)
		}
		if err != nil {
			clearRewritings(out)
			return nil, r.failed(err)
		}
		if f.Single {
			r.target = path.Join(r.target, f.Name)
		}
		r.Data = bytes.Clone(f.Data)
		out = append(out, r)
	}
	return out, nil
}

// clearRewritings overwrites data (I3) and closes mounts.
func clearRewritings(all []rewriting) {
	for _, r := range all {
		clear(r.Data)
		if r.single >= 0 {
			unix.Close(r.single)
		}
	}
}

// rewriteAll does it on a thread that ends afterwards.
func (c *container) rewriteAll(all []rewriting, plan *spec.Plan) error {
	// The first namespace is for what is shown nowhere else, the second is the container's.
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	descriptors, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(descriptors)
	mounts, err := c.enter(func() error { return makeSingles(all, c.id, plan) })
	if err != nil {
		return err
	}
	for i := range all {
		if err := all[i].carryOut(mounts, fileMark(c.id, all[i].target), descriptors); err != nil {
			return all[i].failed(err)
		}
	}
	return nil
}

// enter brings the thread into the container's mount namespace, and gives the mount table there. Before it enters, it does what is to be
// done outside.
func (c *container) enter(outside func() error) ([]mounted, error) {
	pid := c.process.Pid()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, c.goneOr(err)
	}
	defer namespace.Close()
	mounts, err := readMounts(pid)
	if err != nil {
		return nil, c.goneOr(err)
	}
	// If it is still there, both were its own.
	if err := c.process.Signal(0); err != nil {
		return nil, c.goneOr(err)
	}
	if err := outside(); err != nil {
		return nil, err
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("join mount namespace: %w", err)
	}
	return mounts, nil
}

// goneOr is err, or says that the container has ended.
func (c *container) goneOr(err error) error {
	if c.process.Signal(0) != nil {
		return fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	}
	return err
}

// makeSingles makes detached mounts of the single files with their new contents.
func makeSingles(all []rewriting, id string, plan *spec.Plan) (err error) {
	for i := range all {
		if !all[i].Single {
			continue
		}
		if all[i].single, err = makeSingle(all[i].File, id, plan); err != nil {
			return err
		}
	}
	return nil
}

// makeSingle makes one as a container's first one is made.
func makeSingle(f protocol.File, id string, plan *spec.Plan) (int, error) {
	mem, err := fillMemory([]protocol.File{f}, id, plan)
	if err != nil {
		return -1, err
	}
	defer mem.close()
	return mem.mounts[0].FS.Single(f.Name)
}

// carryOut writes one file. The thread is in the container's mount namespace.
func (r *rewriting) carryOut(mounts []mounted, mark string, descriptors int) error {
	at, err := find(mounts, mark, r.target)
	if err != nil {
		return err
	}
	old, err := at.open()
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if r.Single {
		return replaceMount(old, r.single, descriptors)
	}
	mem, err := memfs.Reopen(old)
	if err != nil {
		return err
	}
	defer mem.Close()
	return mem.Replace(r.Name, r.Data, r.mode, r.uid, r.gid)
}

// replaceMount puts a mount in the place of old. At no time is there none. Kernels before 6.5 can't put one beneath another: there the new one
// hides the old one, which stays until the container ends.
func replaceMount(old, mount, descriptors int) error {
	const onto = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	err := unix.MoveMount(mount, "", old, "", onto|moveMountBeneath)
	beneath := err == nil
	if errors.Is(err, unix.EINVAL) {
		err = unix.MoveMount(mount, "", old, "", onto)
	}
	if err != nil {
		return fmt.Errorf("show the new file: %w", err)
	}
	if !beneath {
		return nil
	}
	// By its descriptor, because a path could lead elsewhere by now.
	err = unix.Fchdir(descriptors)
	if err == nil {
		err = unix.Unmount(strconv.Itoa(old), unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("take the old file away: %w", err)
	}
	return nil
}
