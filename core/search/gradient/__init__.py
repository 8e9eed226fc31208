"""Search by gradients: the derivative of the losses with respect to every searched parameter, and steps along it."""
