package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// notifyVariable names the socket of the service manager, as sd_notify(3) says.
const notifyVariable = "NOTIFY_SOCKET"

// notifyReady tells the service manager that the daemon answers on its socket. It does nothing where none asked for it.
func notifyReady() error {
	path := os.Getenv(notifyVariable)
	if path == "" {
		return nil
	}
	// A path that starts with @ is abstract; package net writes it that way too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}
