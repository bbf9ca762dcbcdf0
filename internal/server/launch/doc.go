// Package launch starts servers of other projects as processes of this one: on free ports of 127.0.0.1,
// with their data in a directory of their own.
//
//	launcher, err := launch.New(launch.Config{})
//	defer launcher.Close()
//	s, err := launcher.Start(ctx, launch.Redis, launch.Options{})
//
// A server is ready when Start returns. Its ports stay its own until Close, also while it is stopped: no
// other process gets one of them by chance, so Restart finds them free. When this process ends, however
// it ends, the kernel kills the servers.
//
// # What this package does not do
//
// It installs nothing (scripts/test-setup.sh does) and restarts nothing by itself. It works on Linux only;
// elsewhere it compiles, and Start returns errors.ErrUnsupported.
package launch
