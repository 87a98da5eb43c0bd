package unpack

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// paxXattr is how tar carries extended attributes.
const paxXattr = "SCHILY.xattr."

// allowedXattr tells which attributes an image may set (I2). Everything that
// the kernel or overlayfs acts upon is left out, but for file capabilities and
// ACLs, which are part of what a program is.
func allowedXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	default:
		return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
	}
}

// setXattrs sets the allowed attributes of a tar header.
func setXattrs(fd int, records map[string]string) error {
	total := 0
	for record, value := range records {
		name, ok := strings.CutPrefix(record, paxXattr)
		if !ok || !allowedXattr(name) {
			continue
		}
		if total += len(name) + len(value); total > maxXattrs {
			return fmt.Errorf("%w: more than %d bytes of extended attributes", ErrLimit, maxXattrs)
		}
		if err := setXattr(fd, name, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// setXattr passes over what the file system cannot keep, except capabilities:
// without them the program would not work, and nobody would know why.
func setXattr(fd int, name string, value []byte) error {
	err := unix.Fsetxattr(fd, name, value, 0)
	if errors.Is(err, unix.ENOTSUP) && name != "security.capability" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set attribute %q: %w", clip(name), err)
	}
	return nil
}

// copyXattrs copies the allowed attributes of a directory of a lower layer.
func copyXattrs(from, to int) error {
	size, err := unix.Flistxattr(from, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(from, list); err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	names := strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00")
	for _, name := range slices.DeleteFunc(names, func(n string) bool { return !allowedXattr(n) }) {
		value := make([]byte, maxXattrs)
		n, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("read attribute %q: %w", name, err)
		}
		if err := setXattr(to, name, value[:n]); err != nil {
			return err
		}
	}
	return nil
}
