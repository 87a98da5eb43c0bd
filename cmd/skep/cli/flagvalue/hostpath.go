package flagvalue

import (
	"fmt"
	"path"
	"strings"

	"github.com/skep-io/skep/api"
)

// Devices collects devices of the host, each PATH[:PERMISSIONS], or the name of a CDI device.
type Devices struct {
	Files []*api.GrantDevice
	// CDI are names as vendor.com/class=name.
	CDI []string
}

// Set adds one device.
func (d *Devices) Set(text string) error {
	if strings.Contains(text, "=") && !path.IsAbs(text) {
		d.CDI = append(d.CDI, text)
		return nil
	}
	file, permissions, _ := strings.Cut(text, ":")
	if !path.IsAbs(file) || strings.Contains(permissions, ":") {
		return fmt.Errorf("invalid device %q: write PATH or PATH:PERMISSIONS, such as /dev/kvm or /dev/kvm:r, which has the same path in the container, "+
			"or the name of a CDI device, vendor.com/class=name", text)
	}
	d.Files = append(d.Files, &api.GrantDevice{Path: file, Permissions: permissions})
	return nil
}

// String is empty: the default is no device.
func (d *Devices) String() string { return "" }

// Type is Docker's word.
func (d *Devices) Type() string { return "list" }

// HostMounts collects files and directories of the host, each SOURCE[:TARGET][:OPTION[,OPTION]], with the options ro, rw and how mounts
// travel: rprivate, rslave and the like.
type HostMounts []*api.GrantMount

// Set adds one file or directory.
func (m *HostMounts) Set(text string) error {
	parts := strings.Split(text, ":")
	mount := &api.GrantMount{Source: parts[0]}
	rest := parts[1:]
	if n := len(rest); n > 0 && setHostOptions(mount, rest[n-1]) {
		rest = rest[:n-1]
	}
	if len(rest) == 1 {
		mount.Target = rest[0]
	}
	if len(rest) > 1 || !path.IsAbs(mount.GetSource()) || len(rest) == 1 && !path.IsAbs(mount.GetTarget()) {
		return fmt.Errorf("invalid mount %q: write SOURCE, SOURCE:ro or SOURCE:TARGET:ro,rslave, with absolute paths without colons", text)
	}
	*m = append(*m, mount)
	return nil
}

// setHostOptions takes options, and reports whether they are all options.
func setHostOptions(mount *api.GrantMount, text string) bool {
	for word := range strings.SplitSeq(text, ",") {
		how, ok := propagations()[word]
		switch {
		case ok:
			mount.Propagation = how
		case word == "ro" || word == "rw":
			mount.ReadOnly = word == "ro"
		default:
			return false
		}
	}
	return true
}

// String is empty: the default is no mount.
func (m *HostMounts) String() string { return "" }

// Type is Docker's word.
func (m *HostMounts) Type() string { return "list" }
