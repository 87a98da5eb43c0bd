package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bufferSize is the size of one write of file content.
const bufferSize = 1 << 20

// Report says what a layer made.
type Report struct {
	Entries int   `json:"entries"`
	Bytes   int64 `json:"bytes"` // content of regular files
	// Opaque are the directories that hide what is below them, as paths
	// without symlinks relative to the target; "." is the root of the layer.
	Opaque []string `json:"opaque,omitempty"`
}

// applier holds the state of one Apply. Directory descriptors in it are owned
// by its cache, except root and parents, which the caller owns.
type applier struct {
	root    int
	parents []int // top first
	limits  Limits

	dirs   dirCache
	buf    []byte
	times  []dirTime
	opaque map[string]bool
	report Report
	names  int // bytes remembered in times and opaque
}

// dirTime is a directory's modification time, which is set last because each
// entry made in the directory changes it.
type dirTime struct {
	name string
	time time.Time
}

// Apply writes the uncompressed tar stream r below the directory descriptor
// root. parents are descriptors of the layers below, top first, whose directory
// metadata is inherited (I3). It needs the privileges to chown and mknod. The
// caller marks the report's opaque directories with [MarkOpaque].
//
// Apply reads up to the end of the archive, not to the end of r.
func Apply(root int, parents []int, r io.Reader, limits Limits) (Report, error) {
	a := &applier{
		root: root, parents: parents, limits: limits.withDefaults(),
		buf: make([]byte, bufferSize), opaque: map[string]bool{},
	}
	defer a.dirs.flush()
	if err := a.prepareRoot(); err != nil {
		return Report{}, fmt.Errorf("prepare root: %w", err)
	}
	tr := tar.NewReader(r)
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // cleanName judges paths
			return Report{}, badStream(err)
		}
		if err := a.entry(tr, header); err != nil {
			return Report{}, fmt.Errorf("entry %q: %w", clip(header.Name), blame(err))
		}
	}
	if err := a.setTimes(); err != nil {
		return Report{}, err
	}
	a.report.Opaque = slices.Sorted(maps.Keys(a.opaque))
	return a.report, nil
}

// badStream marks what the tar reader did not understand, but not what the
// readers below it said.
func badStream(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrLayer, err)
	}
	return err
}

// blame marks those errors of the kernel that the layer alone can cause, so that
// a full disk is not mistaken for a bad image.
func blame(err error) error {
	if errors.Is(err, ErrLayer) || errors.Is(err, ErrLimit) {
		return err
	}
	for _, errno := range []unix.Errno{
		unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL, unix.EMLINK, unix.ERANGE, unix.E2BIG,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", ErrLayer, err)
		}
	}
	return err
}

// clip shortens a name that goes into an error.
func clip(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}

// entry applies one entry of the tar.
func (a *applier) entry(tr *tar.Reader, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if a.report.Entries++; a.report.Entries > a.limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, a.limits.Entries)
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return a.rootEntry(h)
	}
	dir, base := path.Split(name)
	parent, err := a.dir(path.Clean(dir))
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(parent, path.Clean(dir), base)
	}
	if err := checkHeader(h); err != nil {
		return err
	}
	at := target{dir: path.Clean(dir), base: base, parent: parent}
	switch h.Typeflag {
	case tar.TypeDir:
		return a.makeDir(at, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return a.makeFile(at, h, tr)
	case tar.TypeLink:
		return a.makeLink(at, h)
	case tar.TypeSymlink:
		return a.makeSymlink(at, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return a.makeNode(at, h)
	default:
		return fmt.Errorf("%w: unknown type %q", ErrLayer, h.Typeflag)
	}
}

// cleanName makes a tar name relative to the root of the layer. Names that
// point outside are refused rather than bent: no honest tool writes them.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("%w: a path of %d bytes", ErrLimit, len(name))
	}
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: NUL in a path", ErrLayer)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("%w: the path leaves the image", ErrLayer)
	}
	if strings.Count(clean, "/") >= maxDepth {
		return "", fmt.Errorf("%w: more than %d directories deep", ErrLimit, maxDepth)
	}
	return clean, nil
}

// checkHeader refuses owners that would wrap, and times it cannot be bothered
// with are left to the kernel, which clamps them.
func checkHeader(h *tar.Header) error {
	const noChange = 1<<32 - 1 // chown's -1
	if h.Uid < 0 || h.Uid >= noChange || h.Gid < 0 || h.Gid >= noChange {
		return fmt.Errorf("%w: owner %d:%d", ErrLayer, h.Uid, h.Gid)
	}
	return nil
}

// prepareRoot gives the root its metadata, which not every layer has an entry for.
func (a *applier) prepareRoot() error {
	fd, err := openDirAt(a.root, ".") // root itself may be a path descriptor
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.inherit(fd, ".")
}

// rootEntry applies the entry of the layer's root directory itself.
func (a *applier) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root is not a directory", ErrLayer)
	}
	if err := checkHeader(h); err != nil {
		return err
	}
	fd, err := openDirAt(a.root, ".")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.finishDir(fd, ".", h)
}

// setTimes gives the directories their times; of several entries for the same
// directory the last one wins.
func (a *applier) setTimes() error {
	for _, d := range a.times {
		fd, err := a.lookup(d.name)
		if gone(err) {
			continue // a later entry replaced it
		}
		if err != nil {
			return fmt.Errorf("set time of %q: %w", clip(d.name), err)
		}
		err = setTime(fd, "", d.time, unix.AT_EMPTY_PATH)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("set time of %q: %w", clip(d.name), err)
		}
	}
	return nil
}

// charge accounts for a name that is kept until the end of the layer.
func (a *applier) charge(name string) error {
	if a.names += len(name); a.names > maxNames {
		return fmt.Errorf("%w: too many long directory names", ErrLimit)
	}
	return nil
}

// keepTime remembers a directory's time for setTimes.
func (a *applier) keepTime(name string, t time.Time) error {
	a.times = append(a.times, dirTime{name, t})
	return a.charge(name)
}

func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
