package lsm

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// SELinuxAttr is the extended attribute that has the label of a file.
const SELinuxAttr = "security.selinux"

// SELinuxEnforces reports whether SELinux is on, and not only to warn.
func SELinuxEnforces() bool { return selinux.EnforceMode() == selinux.Enforcing }

// SELinux reports whether SELinux is on, and the node's policy has labels for containers.
func SELinux() bool { return selinux.GetEnabled() && policyLabels() }

// policyLabels reports whether the node's policy names labels for containers: in the file lxc_contexts, which container-selinux and the
// reference policy bring along.
var policyLabels = sync.OnceValue(func() bool {
	process, _, err := label.InitLabels(nil)
	ReleaseLabel(process)
	return err == nil && process != ""
})

// Labels are what SELinux confines a container by. The zero value is nothing.
type Labels struct {
	// Process is the label of its processes, or "" for what the policy makes of the node's own.
	Process string
	// Mount is the label of its file systems.
	Mount string
}

// NewLabels makes the labels of a container: those of the node's policy, with a pair of categories that no other container of this process
// has, and the options of label= in them: disable, user:U, role:R, type:T and level:L. Release gives the pair back. There must be SELinux.
func NewLabels(options []string) (Labels, error) {
	process, mount, err := label.InitLabels(options)
	if err != nil {
		return Labels{}, fmt.Errorf("SELinux label: %w", err)
	}
	for _, l := range []string{process, mount} {
		if l == "" {
			continue
		}
		if err := selinux.SecurityCheckContext(l); err != nil {
			if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "level:") }) { // which another may have
				ReleaseLabel(process)
			}
			return Labels{}, fmt.Errorf("the SELinux policy has no label %s: %w", l, err)
		}
	}
	return Labels{Process: process, Mount: mount}, nil
}

// ReserveLabel keeps the categories of a label from new containers: one that runs already has it. A service that names its categories may have
// them in several containers.
func ReserveLabel(label string) {
	_ = selinux.ReserveLabelV2(label) // its only error is that they are kept already
}

// SameCategories reports whether two labels have the same level.
func SameCategories(a, b string) bool {
	const parts = 4
	x, y := strings.SplitN(a, ":", parts), strings.SplitN(b, ":", parts)
	return len(x) == parts && len(y) == parts && x[parts-1] == y[parts-1]
}

// ReleaseLabel lets new containers have the categories of a label.
func ReleaseLabel(label string) { selinux.ReleaseLabel(label) }

// ShareFile labels a file or directory for all containers of the policy that the labels are of: without categories. What is made in such a
// directory follows, if the policy says so, as they all do for containers.
func ShareFile(path string, labels Labels) error {
	context, err := selinux.NewContext(labels.Mount)
	if err != nil {
		return fmt.Errorf("SELinux label %s: %w", labels.Mount, err)
	}
	if level, _, ok := strings.Cut(context["level"], ":"); ok {
		context["level"] = level
	}
	if err := selinux.LsetFileLabel(path, context.Get()); err != nil {
		return fmt.Errorf("label %s for containers: %w", path, err)
	}
	return nil
}

// LabelSockets calls f, in which every socket that is made, and every connection that such a socket accepts, has a label: that of the processes
// that are to connect, which could not reach one of the node's. With "" it is f.
func LabelSockets(label string, f func() error) error {
	if label == "" {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := selinux.SetSocketLabel(label); err != nil {
		return fmt.Errorf("label sockets %s: %w", label, err)
	}
	return errors.Join(f(), selinux.SetSocketLabel(""))
}
