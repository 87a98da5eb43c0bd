package executor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxLinks is the most symbolic links on the way to a file; Linux's.
	maxLinks = 40
	// opaqueAttr marks a directory that hides those of the same name below; overlayfs's.
	opaqueAttr = "trusted.overlay.opaque"
)

// errTooManyLinks is returned when symbolic links of an image go round in circles.
var errTooManyLinks = errors.New("too many symbolic links")

// readImageFile returns a file of an image as its container would see it, at most limit bytes; nil when there is none. The layers
// are directories as overlayfs takes them, the topmost first. It never leaves them, whatever links they have.
func readImageFile(layers []string, name string, limit int64) ([]byte, error) {
	file, dirs, err := find(layers, name)
	closeAll(dirs)
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", name, err)
	}
	if file == nil {
		return nil, nil
	}
	defer file.Close()
	return readRegular(file, limit)
}

// openImageDirectory opens a directory of an image as its container would see it: the directories to be merged, the topmost first,
// which the caller closes; nil when there is none. It never leaves the layers.
func openImageDirectory(layers []string, name string) ([]*os.Root, error) {
	file, dirs, err := find(layers, name)
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", name, err)
	}
	if file != nil {
		return nil, file.Close()
	}
	return dirs, nil
}

// find follows links to the file or the directories of a name; neither if there is nothing.
func find(layers []string, name string) (*os.File, []*os.Root, error) {
	at := path.Clean("/" + name)
	for range maxLinks {
		file, dirs, next, err := walk(layers, at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil, nil
		case err != nil || file != nil || dirs != nil:
			return file, dirs, err
		}
		at = next
	}
	return nil, nil, errTooManyLinks
}

// walk follows a clean absolute path. It returns the file or the directories at its end, or the path that the first symbolic link
// on it leads to.
func walk(layers []string, at string) (file *os.File, end []*os.Root, next string, err error) {
	dirs, err := openRoots(layers)
	if err != nil {
		return nil, nil, "", err
	}
	defer func() { closeAll(dirs) }()
	names := strings.Split(strings.Trim(at, "/"), "/")
	for i, name := range names {
		found, err := lookupName(dirs, name)
		if err != nil {
			return nil, nil, "", err
		}
		last := i == len(names)-1
		switch {
		case found.dirs != nil:
			closeAll(dirs)
			dirs = found.dirs
		case found.mode&fs.ModeSymlink != 0:
			target, err := found.in.Readlink(name)
			return nil, nil, follow(names[:i], target, names[i+1:]), err
		case last && found.mode.IsRegular():
			file, err := found.in.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			return file, nil, "", err
		default:
			return nil, nil, "", fs.ErrNotExist
		}
	}
	end, dirs = dirs, nil
	return nil, end, "", nil
}

// follow returns the path that a link leads to. The names before it are directories and no links.
func follow(before []string, target string, after []string) string {
	if !path.IsAbs(target) {
		target = path.Join(path.Join(before...), target)
	}
	return path.Join("/", target, path.Join(after...))
}

// entry is what a name is in a merged directory: the directories of that name to be merged, or something else in one layer.
type entry struct {
	dirs []*os.Root
	in   *os.Root
	mode fs.FileMode
}

// lookupName finds a name in directories that are merged, the topmost first. Links are not followed.
func lookupName(dirs []*os.Root, name string) (entry, error) {
	var merged []*os.Root
	for _, d := range dirs {
		info, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(merged)
			return entry{}, err
		}
		if !info.IsDir() {
			if merged == nil && !whiteout(info) {
				return entry{in: d, mode: info.Mode()}, nil
			}
			break // what is below is hidden
		}
		sub, opaque, err := openDirectory(d, name)
		if err != nil {
			closeAll(merged)
			return entry{}, err
		}
		merged = append(merged, sub)
		if opaque {
			break
		}
	}
	if merged == nil {
		return entry{}, fs.ErrNotExist
	}
	return entry{dirs: merged}, nil
}

// whiteout says whether an entry is overlayfs's mark of a deletion.
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func openDirectory(d *os.Root, name string) (sub *os.Root, opaque bool, err error) {
	sub, err = d.OpenRoot(name)
	if err != nil {
		return nil, false, err
	}
	self, err := sub.Open(".")
	if err != nil {
		return nil, false, errors.Join(err, sub.Close())
	}
	defer self.Close()
	value := make([]byte, 1)
	n, err := unix.Fgetxattr(int(self.Fd()), opaqueAttr, value)
	return sub, err == nil && n == 1 && value[0] == 'y', nil
}

func openRoots(layers []string) ([]*os.Root, error) {
	var out []*os.Root
	for _, l := range layers {
		r, err := os.OpenRoot(l)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func closeAll(roots []*os.Root) {
	for _, r := range roots {
		_ = r.Close() // opened for reading
	}
}

// readRegular reads a file that must be a regular one, at most limit bytes.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
