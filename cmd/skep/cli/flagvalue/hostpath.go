package flagvalue

import (
	"fmt"
	"path"
	"strings"

	"github.com/skep-io/skep/api"
)

// Devices collects devices of the host, each PATH[:PERMISSIONS].
type Devices []*api.GrantDevice

// Set adds one device.
func (d *Devices) Set(text string) error {
	file, permissions, _ := strings.Cut(text, ":")
	if !path.IsAbs(file) || strings.Contains(permissions, ":") {
		return fmt.Errorf("invalid device %q: write PATH or PATH:PERMISSIONS, such as /dev/kvm or /dev/kvm:r; it has the same path in the container", text)
	}
	*d = append(*d, &api.GrantDevice{Path: file, Permissions: permissions})
	return nil
}

// String is empty: the default is no device.
func (d *Devices) String() string { return "" }

// Type is Docker's word.
func (d *Devices) Type() string { return "list" }

// HostMounts collects files and directories of the host, each SOURCE[:TARGET][:ro|rw].
type HostMounts []*api.GrantMount

// Set adds one file or directory.
func (m *HostMounts) Set(text string) error {
	parts := strings.Split(text, ":")
	mount := &api.GrantMount{Source: parts[0]}
	rest := parts[1:]
	if n := len(rest); n > 0 && (rest[n-1] == "ro" || rest[n-1] == "rw") {
		mount.ReadOnly, rest = rest[n-1] == "ro", rest[:n-1]
	}
	if len(rest) == 1 {
		mount.Target, rest = rest[0], nil
	}
	if len(rest) > 0 || !path.IsAbs(mount.GetSource()) || mount.GetTarget() == "" && len(parts) > 1 && !isMode(parts[len(parts)-1]) ||
		mount.GetTarget() != "" && !path.IsAbs(mount.GetTarget()) {
		return fmt.Errorf("invalid mount %q: write SOURCE, SOURCE:ro or SOURCE:TARGET:ro, with absolute paths without colons", text)
	}
	*m = append(*m, mount)
	return nil
}

func isMode(word string) bool { return word == "ro" || word == "rw" }

// String is empty: the default is no mount.
func (m *HostMounts) String() string { return "" }

// Type is Docker's word.
func (m *HostMounts) Type() string { return "list" }
