package executor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/passwd"
)

const (
	// maxGroups is the most supplementary groups of a process; the runtime's limit.
	maxGroups = 1024
	// maxUserID is the largest id that a specification can name: ids are signed in too many programs.
	maxUserID = 1<<31 - 1
)

// account is what a process runs as, in the ids of its container.
type account struct {
	uid, gid uint32
	// groups are its supplementary groups, and its own first, as Docker has it: a process that gets another group by a program
	// of that group is still bound by what its own may not do.
	groups []uint32
	// home is its home directory.
	home string
}

func (a account) user() specs.User {
	return specs.User{UID: a.uid, GID: a.gid, AdditionalGids: a.groups}
}

// accounts are the contents of an image's /etc/passwd and /etc/group; nil where there is no such file.
type accounts struct {
	passwd, group []byte
}

// lookup resolves a specification such as "app", "1000", "app:staff" or "1000:1000", as Docker does. Empty is root. The groups, by
// name or id, come beside those that the user has.
func (a accounts) lookup(spec string, groups ...string) (account, error) {
	out, err := a.account(spec)
	if err != nil {
		return account{}, err
	}
	for _, group := range groups {
		gid, err := a.groupID(group)
		switch {
		case err != nil:
			return account{}, err
		case gid >= rangeSize:
			return account{}, fault.New(fault.Invalid, "group %.80q: %d is not within the %d ids of a container", group, gid, rangeSize)
		case !slices.Contains(out.groups, gid):
			out.groups = append(out.groups, gid)
		}
	}
	if len(out.groups) > maxGroups {
		return account{}, fault.New(fault.Invalid, "user %q is in %d groups: at most %d are possible", spec, len(out.groups), maxGroups)
	}
	return out, nil
}

func (a accounts) account(spec string) (account, error) {
	user, group, grouped := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	out, name, err := a.user(user)
	if err != nil {
		return account{}, err
	}
	if grouped && group != "" {
		out.gid, err = a.groupID(group)
		out.groups = []uint32{out.gid}
		return a.checked(spec, out, err)
	}
	out.groups = a.memberships(name, out.gid)
	return a.checked(spec, out, nil)
}

// checked refuses ids that a container doesn't have.
func (a accounts) checked(spec string, out account, err error) (account, error) {
	if err != nil {
		return account{}, err
	}
	if out.uid >= rangeSize || out.gid >= rangeSize {
		return account{}, fault.New(fault.Invalid, "user %q: %d:%d is not within the %d ids of a container", spec, out.uid, out.gid, rangeSize)
	}
	out.groups = slices.DeleteFunc(out.groups, func(g uint32) bool { return g >= rangeSize })
	return out, nil
}

// user finds a user by name or id, and the name.
func (a accounts) user(user string) (account, string, error) {
	id, numeric, err := parseID(user)
	if err != nil {
		return account{}, "", err
	}
	out, name := account{home: "/"}, ""
	passwd.Each(a.passwd, 4, func(f []string) bool {
		uid, err := strconv.ParseUint(f[2], 10, 31)
		gid, gidErr := strconv.ParseUint(f[3], 10, 31)
		if err != nil || gidErr != nil || f[0] != user && (!numeric || uint32(uid) != id) {
			return true
		}
		out.uid, out.gid, name = uint32(uid), uint32(gid), f[0]
		out.home = passwd.HomeIn(f)
		return false
	})
	switch {
	case name != "":
		return out, name, nil
	case numeric:
		out.uid = id
		return out, "", nil
	}
	return account{}, "", fault.New(fault.Invalid, "user %.80q is not in the image's /etc/passwd", user)
}

// groupID finds a group by name or id.
func (a accounts) groupID(group string) (uint32, error) {
	id, numeric, err := parseID(group)
	if err != nil || numeric {
		return id, err
	}
	found := false
	passwd.Each(a.group, 3, func(f []string) bool {
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil && f[0] == group {
			id, found = uint32(gid), true
		}
		return !found
	})
	if !found {
		return 0, fault.New(fault.Invalid, "group %.80q is not in the image's /etc/group", group)
	}
	return id, nil
}

// memberships returns a user's primary group and the groups that list the user.
func (a accounts) memberships(user string, primary uint32) []uint32 {
	out := []uint32{primary}
	if user == "" {
		return out
	}
	passwd.Each(a.group, 4, func(f []string) bool {
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil && slices.Contains(strings.Split(f[3], ","), user) && !slices.Contains(out, uint32(gid)) {
			out = append(out, uint32(gid))
		}
		return len(out) < maxGroups
	})
	return out
}

// parseID reads a decimal id. numeric is false for what begins like a name.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxUserID || s != strconv.FormatUint(n, 10) {
		return 0, false, fault.New(fault.Invalid, "user or group id %.80q is not a number from 0 to %d", s, maxUserID)
	}
	return uint32(n), true, nil
}

// String returns the ids as in "1000:1000".
func (a account) String() string { return fmt.Sprintf("%d:%d", a.uid, a.gid) }
