package authz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// SocketPeer is the process at the other end of the daemon's unix socket, as the kernel knows it.
type SocketPeer struct {
	credentials.CommonAuthInfo
	PID int32
	UID uint32
	// Admin is true for root and for members of the admin group.
	Admin bool
}

// AuthType implements credentials.AuthInfo.
func (SocketPeer) AuthType() string { return "unix" }

// NoGroup is for SocketCredentials where there is no admin group: no process has this gid.
const NoGroup = ^uint32(0)

// SocketCredentials returns the server's side of the unix socket: it asks the kernel who connected. Processes of root and of
// the group with the ID admins are administrators. Clients use insecure.NewCredentials.
func SocketCredentials(admins uint32) credentials.TransportCredentials { return socketCreds{admins} }

type socketCreds struct{ admins uint32 }

// ServerHandshake implements credentials.TransportCredentials.
func (c socketCreds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return nil, nil, errors.New("not a unix socket")
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("unix socket: %w", err)
	}
	info := SocketPeer{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	var peerErr error
	err = control.Control(func(fd uintptr) { peerErr = c.ask(int(fd), &info) })
	if err := errors.Join(err, peerErr); err != nil {
		return nil, nil, fmt.Errorf("ask for the peer of a unix socket: %w", err)
	}
	return conn, info, nil
}

// ask fills info with what the kernel noted when the peer connected.
func (c socketCreds) ask(fd int, info *SocketPeer) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	info.PID, info.UID = cred.Pid, cred.Uid
	info.Admin = cred.Uid == 0
	if info.Admin || c.admins == NoGroup {
		return nil
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return err
	}
	info.Admin = cred.Gid == c.admins || slices.Contains(groups, c.admins)
	return nil
}

// peerGroups returns the supplementary groups of a socket's peer, for which golang.org/x/sys has no function.
func peerGroups(fd int) ([]uint32, error) {
	const maxGroups = 65536 // NGROUPS_MAX
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && len(groups) < maxGroups:
			groups = make([]uint32, min(maxGroups, max(2*len(groups), int(size/4))))
		default:
			return nil, errno
		}
	}
}

// ClientHandshake implements credentials.TransportCredentials; it is for servers only.
func (socketCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (socketCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone implements credentials.TransportCredentials.
func (c socketCreds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (socketCreds) OverrideServerName(string) error { return nil }
