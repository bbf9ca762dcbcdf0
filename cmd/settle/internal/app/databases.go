package app

import "context"

// create makes the databases that a server does not have yet. Files are made when they are opened.
func (u storeURL) create(_ context.Context, _ []string) error {
	switch u.dialect {
	case "postgres", "mysql":
		return usage("--store %s is not built in yet", u.dialect)
	}
	return nil
}

// drop deletes the databases of a server that are a shop's, or none when one of them is not.
func (u storeURL) drop(_ context.Context, _ []string) error {
	switch u.dialect {
	case "postgres", "mysql":
		return usage("--store %s is not built in yet", u.dialect)
	}
	return nil
}
