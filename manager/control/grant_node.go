package control

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/logdriver"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/security"
)

// Limits of what a grant gives of a node.
const (
	maxGrantDevices = 64
	maxGrantMounts  = 64
	maxPath         = 4095 // PATH_MAX without the zero byte
)

// fillGrantNode spells out the defaults.
func fillGrantNode(spec *api.GrantSpec) {
	for _, device := range spec.GetDevices() {
		if device.GetPermissions() == "" {
			device.Permissions = "rw"
		}
	}
	for _, mount := range spec.GetMounts() {
		if mount.GetTarget() == "" {
			mount.Target = mount.GetSource()
		}
	}
}

func (p *problems) grantDevices(devices []*api.GrantDevice) {
	if len(devices) > maxGrantDevices {
		p.add("devices", "%d devices are too many: at most %d are allowed", len(devices), maxGrantDevices)
		return
	}
	taken := map[string]bool{}
	for i, device := range devices {
		at := fmt.Sprintf("devices[%d]", i)
		p.deviceFile(at+".path", device.GetPath())
		if strings.Trim(device.GetPermissions(), "rw") != "" {
			p.add(at+".permissions", "invalid permissions %q: r, w or rw; a container makes no device files", clip(device.GetPermissions()))
		}
		if taken[device.GetPath()] {
			p.add(at+".path", "%s is there twice", clip(device.GetPath()))
		}
		taken[device.GetPath()] = true
	}
}

// cdiDevices checks names; what they are, each node knows.
func (p *problems) cdiDevices(names []string, ignoreHooks bool) {
	if len(names) > maxGrantDevices {
		p.add("cdi_devices", "%d devices are too many: at most %d are allowed", len(names), maxGrantDevices)
		return
	}
	if ignoreHooks && len(names) == 0 {
		p.add("ignore_cdi_hooks", "is for CDI devices only, and the grant has none")
	}
	for i, name := range names {
		at := fmt.Sprintf("cdi_devices[%d]", i)
		switch _, _, _, err := parser.ParseQualifiedName(name); {
		case err != nil || len(name) > maxDescription:
			p.add(at, "invalid CDI device %q: write vendor.com/class=name", clip(name))
		case slices.Contains(names[:i], name):
			p.add(at, "%s is there twice", clip(name))
		}
	}
}

// deviceFile checks the path of a device. Those that every container has a device or file system of its own at stay so.
func (p *problems) deviceFile(field, file string) {
	name, below := strings.CutPrefix(file, "/dev/")
	switch first, _, _ := strings.Cut(name, "/"); {
	case !below || !plainPath(file) || name == "":
		p.add(field, "invalid device %q: must be the clean path of a file below /dev", clip(file))
	case slices.Contains([]string{
		"pts", "shm", "mqueue", "ptmx", "console", "fd", "stdin", "stdout", "stderr",
		"null", "zero", "full", "random", "urandom", "tty",
	}, first):
		p.add(field, "every container has its own %s", clip(file))
	}
}

// plainPath reports whether a path is absolute, in its shortest form, and one that a system call takes.
func plainPath(file string) bool {
	return path.IsAbs(file) && path.Clean(file) == file && len(file) <= maxPath && !strings.ContainsRune(file, 0)
}

func (p *problems) grantMounts(mounts []*api.GrantMount) {
	if len(mounts) > maxGrantMounts {
		p.add("mounts", "%d mounts are too many: at most %d are allowed", len(mounts), maxGrantMounts)
		return
	}
	taken := map[string]bool{}
	for i, mount := range mounts {
		at := fmt.Sprintf("mounts[%d]", i)
		if !plainPath(mount.GetSource()) {
			p.add(at+".source", "invalid path %q on the host: must be absolute and clean", clip(mount.GetSource()))
		}
		if privilege.Private(mount.GetSource()) {
			p.add(at+".source", "%s is of Skep itself, with its keys: no container is given that", clip(mount.GetSource()))
		}
		target := mount.GetTarget()
		switch {
		case !plainPath(target) || target == "/":
			p.add(at+".target", "invalid mount target %q: must be an absolute, clean path other than /", clip(target))
		case reservedTarget(target):
			p.add(at+".target", "%s would hide what isolates or identifies the container: choose another target (SOURCE:TARGET)", clip(target))
		case taken[target]:
			p.add(at+".target", "duplicate mount point: %s", clip(target))
		}
		taken[target] = true
		p.value(at+".propagation", mount.GetPropagation())
	}
}

// isolating are the directories of a container over which nothing is mounted.
var isolating = []string{"/proc", "/sys", "/dev"}

// reservedTarget reports whether a path in a container is Skep's.
func reservedTarget(target string) bool {
	return within(target, isolating...) || within(target, "/run/skep", "/run/secrets")
}

// within reports whether a clean path is one of some directories or below it.
func within(target string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return target == dir || strings.HasPrefix(target, dir+"/") })
}

// maxGrantOptions bounds the security options of a grant.
const maxGrantOptions = 32

// grantOptions checks options that a service may ask for.
func (p *problems) grantOptions(options []string) {
	if len(options) > maxGrantOptions {
		p.add("security_options", "%d options are too many: at most %d are allowed", len(options), maxGrantOptions)
		return
	}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case strings.HasPrefix(option, security.LogPrefix):
			if err := logdriver.CheckDestination(value); err != nil {
				p.add("security_options", "%s: %v", clip(option), err)
			}
		case slices.Contains([]string{security.PIDHost, security.IPCHost, security.UsernsHost, security.NetworkHost}, option):
		case option == "seccomp=unconfined", option == "seccomp=PROFILE", option == "no-new-privileges=false":
		case name == "apparmor" && appArmorPattern.MatchString(value) && len(value) <= maxLabelPart:
		case name == "label" && value != "" && len(value) <= maxLabelPart:
		default:
			p.add("security_options", "%q is none that can be granted: seccomp=unconfined, seccomp=PROFILE (for any profile), no-new-privileges=false, "+
				"apparmor=unconfined, apparmor=NAME, label=disable, label=user|role|type|level:VALUE, log=journald, log=ADDRESS (such as log=udp://HOST:PORT), pid=host, ipc=host, userns=host or network=host", clip(option))
		}
	}
}
