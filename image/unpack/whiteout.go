package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	// metaPrefix begins names that AUFS kept for itself; nothing needs them.
	metaPrefix = ".wh..wh."
	// opaqueXattr makes overlayfs hide what lower layers have in a directory.
	opaqueXattr = "trusted.overlay.opaque"
)

// whiteout turns the tar's marker for "deleted below" into overlayfs's own.
func (a *applier) whiteout(parent int, dir, base string) error {
	if base == opaqueMarker {
		return a.markOpaque(dir)
	}
	if strings.HasPrefix(base, metaPrefix) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: whiteout of nothing", ErrLayer)
	}
	err := unix.Mknodat(parent, name, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A whiteout hides lower layers, never this one: a file of this layer
	// hides them by itself, a directory must become opaque.
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return a.markOpaque(path.Join(dir, name))
	}
	return nil
}

func isWhiteout(st unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// markOpaque notes that the directory hides what is below it.
func (a *applier) markOpaque(dir string) error {
	real, err := a.resolve(dir)
	if err != nil {
		return err
	}
	if a.opaque[real] {
		return nil
	}
	if len(a.opaque) >= maxOpaque {
		return fmt.Errorf("%w: more than %d opaque directories", ErrLimit, maxOpaque)
	}
	if err := a.charge(real); err != nil {
		return err
	}
	a.opaque[real] = true
	return nil
}

// MarkOpaque sets the overlay attribute on the directories that Apply reported.
// It is apart from Apply because it takes CAP_SYS_ADMIN, which the sandboxed
// child does not have. It follows no symlinks; directories that the layer
// itself replaced later are passed over. The root of a layer cannot be opaque
// to overlayfs: whoever mounts it must leave out the layers below.
func MarkOpaque(root int, dirs []string) error {
	for _, dir := range dirs {
		if dir == "." {
			continue
		}
		fd, err := unix.Openat2(root, dir, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if gone(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mark %q opaque: %w", clip(dir), err)
		}
		err = unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("mark %q opaque: %w", clip(dir), err)
		}
	}
	return nil
}
