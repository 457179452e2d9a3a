// Spheres over a checkered plane, with reflections, for povray.
#version 3.7;
global_settings { assumed_gamma 1.0 }
camera { location <0, 4, -9> look_at <0, 1, 0> }
light_source { <10, 20, -10> rgb 1 }
plane { y, 0 pigment { checker rgb 1, rgb 0.2 } finish { reflection 0.2 } }
#declare I = 0;
#while (I < 24)
  sphere { <4 * sin(I), 1 + mod(I, 5) * 0.5, 4 * cos(I * 1.7)>, 0.6
           texture { pigment { bozo scale 0.3 } finish { phong 0.8 reflection 0.3 } normal { bumps 0.3 scale 0.1 } } }
  #declare I = I + 1;
#end
