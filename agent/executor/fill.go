package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

// maxFillDepth bounds how deep the directories are that are copied from an image: real ones are below 30, and each level keeps
// files open.
const maxFillDepth = 64

// copyDirectory copies what an image has in a directory into a volume, with owners and modes, and gives the volume those of the
// directory. It does nothing if the image has no such directory. Devices, pipes and sockets are left out: a volume has none. What is
// in the volume already is replaced.
func copyDirectory(ctx context.Context, layers []string, name string, to *os.Root) error {
	dirs, err := openImageDirectory(layers, name)
	if err != nil || dirs == nil {
		return err
	}
	defer closeAll(dirs)
	return copyMerged(ctx, dirs, to, maxFillDepth)
}

// copyMerged copies directories that are merged, the topmost first.
func copyMerged(ctx context.Context, dirs []*os.Root, to *os.Root, depth int) error {
	if depth == 0 {
		return fault.New(fault.Invalid, "directories of the image are more than %d deep", maxFillDepth)
	}
	done := map[string]bool{}
	for _, d := range dirs {
		names, err := namesIn(d)
		if err != nil {
			return err
		}
		for _, name := range names {
			if done[name] {
				continue
			}
			done[name] = true
			if err := errors.Join(ctx.Err(), copyEntry(ctx, dirs, name, to, depth)); err != nil {
				return err
			}
		}
	}
	info, err := dirs[0].Stat(".")
	if err != nil {
		return err
	}
	return own(to, ".", info)
}

func namesIn(d *os.Root) ([]string, error) {
	dir, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// copyEntry copies what a name is in merged directories; nothing if it was deleted.
func copyEntry(ctx context.Context, dirs []*os.Root, name string, to *os.Root, depth int) error {
	found, err := lookupName(dirs, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if found.dirs != nil {
		defer closeAll(found.dirs)
		if err := to.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		sub, err := to.OpenRoot(name)
		if err != nil {
			return err
		}
		defer sub.Close()
		return copyMerged(ctx, found.dirs, sub, depth-1)
	}
	if !found.mode.IsRegular() && found.mode&fs.ModeSymlink == 0 {
		return nil
	}
	if err := to.RemoveAll(name); err != nil {
		return err
	}
	info, err := found.in.Lstat(name)
	if err != nil {
		return err
	}
	if found.mode.IsRegular() {
		err = copyFile(found.in, name, to)
	} else {
		err = copyLink(found.in, name, to)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return own(to, name, info)
}

func copyFile(from *os.Root, name string, to *os.Root) error {
	in, err := from.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func copyLink(from *os.Root, name string, to *os.Root) error {
	target, err := from.Readlink(name)
	if err != nil {
		return err
	}
	return to.Symlink(target, name)
}

// own gives a file the owner and the mode of another. Owners in layers and in volumes are both the ids inside of containers.
func own(to *os.Root, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fault.New(fault.Internal, "%s has no owner", name)
	}
	if err := to.Lchown(name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return to.Chmod(name, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
